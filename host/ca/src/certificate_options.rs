//! Critical options and extensions of a certificate, from the texts that `ssh-keygen -O` takes.
//!
//! A user certificate begins with ssh-keygen's five extensions, a host certificate with none; the flags are
//! then applied in order. The result is what ssh-keygen 9.2 writes, with one exception: where it would write
//! the same name twice, the two are merged if they are equal, and are an error if they are not, since neither
//! OpenSSH's documentation nor the device allows a repeated name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use sshsm_protocol::ssh::request::CertificateKind;

/// Longest entry of a source-address list that OpenSSH reads: an IPv6 address and `/128`.
const MAX_ADDRESS_LENGTH: usize = 46 + 3;

/// The extensions of a user certificate by default.
pub(crate) const DEFAULT_EXTENSIONS: [&str; 5] = [
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
];

/// Names to optional contents, in the order of their bytes, each name once.
pub type OptionList = BTreeMap<String, Option<String>>;

/// The critical options and the extensions of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateOptions {
    /// Options that a server must understand, or else refuse the certificate.
    pub critical: OptionList,
    /// Options that a server may ignore.
    pub extensions: OptionList,
}

/// Why a text is not a certificate option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No option of ssh-keygen's.
    #[error(
        "{flag:?} is not a certificate option; valid ones are clear, permit-WHAT and no-WHAT (agent-forwarding, \
         port-forwarding, pty, user-rc, x11-forwarding), [no-]touch-required, [no-]verify-required, \
         force-command=COMMAND, source-address=LIST, critical:NAME[=CONTENTS] and extension:NAME[=CONTENTS]"
    )]
    Unknown {
        /// The text.
        flag: String,
    },
    /// An option without the contents or the name that it needs.
    #[error("the certificate option {option:?} is empty")]
    Empty {
        /// The text up to the missing part.
        option: &'static str,
    },
    /// An option without the contents that it needs.
    #[error("the certificate option {option:?} needs a value: -O {option}={example}")]
    Valueless {
        /// The option.
        option: &'static str,
        /// An example of a value.
        example: &'static str,
    },
    /// An option of which there is one, given twice.
    #[error("the certificate option {option:?} is given twice; give it once")]
    Repeated {
        /// The option.
        option: &'static str,
    },
    /// One name with two meanings.
    #[error("the certificate option {name:?} is given twice with different contents")]
    Contradiction {
        /// The name.
        name: String,
    },
    /// A source-address list that no server could match.
    #[error("the source address {entry:?} is wrong: {reason}; give a list such as 192.0.2.0/24,2001:db8::1")]
    Address {
        /// The entry of the list.
        entry: String,
        /// The defect.
        reason: &'static str,
    },
}

impl CertificateOptions {
    /// What `kind` begins with, changed by ssh-keygen's `-O` texts in their order.
    pub fn parse<S: AsRef<str>>(
        kind: CertificateKind,
        flags: impl IntoIterator<Item = S>,
    ) -> Result<Self, OptionError> {
        let mut switches = OptionList::new();
        if kind == CertificateKind::User {
            switches.extend(DEFAULT_EXTENSIONS.map(|name| (name.to_owned(), None)));
        }
        let mut verify = false;
        let mut options = Self::default();
        let (mut command, mut addresses) = (None, None);
        for flag in flags {
            let flag = flag.as_ref();
            let lower = flag.to_ascii_lowercase();
            if let Some((name, present)) = switch(&lower) {
                if present {
                    switches.insert(name.to_owned(), None);
                } else {
                    switches.remove(name);
                }
            } else if lower == "clear" {
                switches.clear();
                verify = false;
            } else if matches!(lower.as_str(), "verify-required" | "no-verify-required") {
                verify = lower == "verify-required";
            } else if let Some(value) = after(flag, "force-command=") {
                once(&mut command, "force-command", value)?;
            } else if let Some(value) = after(flag, "source-address=") {
                check_addresses(value)?;
                once(&mut addresses, "source-address", value)?;
            } else if let Some(custom) = after(flag, "critical:") {
                add_custom(&mut options.critical, "critical:", custom)?;
            } else if let Some(custom) = after(flag, "extension:") {
                add_custom(&mut options.extensions, "extension:", custom)?;
            } else if lower == "force-command" {
                return Err(OptionError::Valueless { option: "force-command", example: "COMMAND" });
            } else if lower == "source-address" {
                return Err(OptionError::Valueless { option: "source-address", example: "192.0.2.0/24" });
            } else if matches!(lower.as_str(), "critical" | "extension") {
                let option = if lower == "critical" { "critical:" } else { "extension:" };
                return Err(OptionError::Empty { option });
            } else {
                return Err(OptionError::Unknown { flag: flag.to_owned() });
            }
        }
        for (name, contents) in [("force-command", command), ("source-address", addresses)] {
            if contents.is_some() {
                add(&mut options.critical, name, contents)?;
            }
        }
        if verify {
            add(&mut options.critical, "verify-required", None)?;
        }
        for name in switches.keys() {
            add(&mut options.extensions, name, None)?;
        }
        Ok(options)
    }
}

/// The extension that a lower-case flag turns on or off.
fn switch(flag: &str) -> Option<(&'static str, bool)> {
    match flag {
        "no-touch-required" => return Some(("no-touch-required", true)),
        "touch-required" => return Some(("no-touch-required", false)),
        _ => {}
    }
    let (what, present) = match flag.strip_prefix("no-") {
        Some(what) => (what, false),
        None => (flag.strip_prefix("permit-")?, true),
    };
    let name = DEFAULT_EXTENSIONS
        .into_iter()
        .find(|name| name.strip_prefix("permit-").is_some_and(|name| name.eq_ignore_ascii_case(what)))?;
    Some((name, present))
}

/// The text after `prefix`, ignoring case.
fn after<'a>(flag: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = flag.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

fn once(slot: &mut Option<String>, option: &'static str, value: &str) -> Result<(), OptionError> {
    if value.is_empty() {
        return Err(OptionError::Empty { option });
    }
    match slot.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(OptionError::Repeated { option }),
    }
}

fn add_custom(list: &mut OptionList, option: &'static str, custom: &str) -> Result<(), OptionError> {
    let (name, contents) = match custom.split_once('=') {
        Some((name, contents)) => (name, Some(contents.to_owned())),
        None => (custom, None),
    };
    if name.is_empty() { Err(OptionError::Empty { option }) } else { add(list, name, contents) }
}

fn add(list: &mut OptionList, name: &str, contents: Option<String>) -> Result<(), OptionError> {
    match list.get(name) {
        Some(present) if *present != contents => Err(OptionError::Contradiction { name: name.to_owned() }),
        _ => {
            list.insert(name.to_owned(), contents);
            Ok(())
        }
    }
}

/// Accepts what OpenSSH's `addr_match_cidr_list` accepts: addresses and networks without host bits, no names, no
/// negation, no blanks.
pub(crate) fn check_addresses(list: &str) -> Result<(), OptionError> {
    if list.is_empty() {
        return Err(OptionError::Empty { option: "source-address" });
    }
    list.split(',').try_for_each(|entry| {
        check_address(entry).map_err(|reason| OptionError::Address { entry: entry.to_owned(), reason })
    })
}

fn check_address(entry: &str) -> Result<(), &'static str> {
    if entry.is_empty() {
        return Err("it is empty");
    }
    if entry.len() > MAX_ADDRESS_LENGTH {
        return Err("it is too long for an address");
    }
    if !entry.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:/".contains(&byte)) {
        return Err("it has characters that no numeric address has");
    }
    let (address, length) = match entry.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (entry, None),
    };
    let (bits, width) = match address.parse::<IpAddr>().ok().or_else(|| legacy_ipv4(address).map(IpAddr::V4))
    {
        Some(IpAddr::V4(address)) => (u128::from(address.to_bits()), 32),
        Some(IpAddr::V6(address)) => (address.to_bits(), 128),
        None => return Err("it is not a numeric IPv4 or IPv6 address"),
    };
    let Some(length) = length else { return Ok(()) };
    let length = length.parse::<u32>().map_err(|_| "its prefix length is not a number")?;
    if length > width {
        return Err("its prefix length is greater than the length of the address");
    }
    match bits.checked_shl(128 - width + length) {
        None | Some(0) => Ok(()),
        Some(_) => Err("it has bits set beyond its prefix length"),
    }
}

/// IPv4 as `inet_aton(3)` still accepts it: one to four numbers, the last filling the rest, octal after a
/// zero.
fn legacy_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text
        .split('.')
        .map(|part| match part.strip_prefix('0') {
            Some("") => Some(0),
            Some(octal) => u32::from_str_radix(octal, 8).ok(),
            None => part.parse().ok(),
        })
        .collect::<Option<_>>()?;
    let (last, octets) = parts.split_last()?;
    let filled = octets.iter().enumerate().try_fold(0, |sum, (place, &octet)| {
        (place < 3 && octet < 256).then(|| sum | octet << (24 - 8 * place))
    })?;
    let room = 32 - 8 * u32::try_from(octets.len()).ok()?;
    (u64::from(*last) < 1 << room).then(|| Ipv4Addr::from_bits(filled | last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_keygen::{SshKeygen, to_be_signed};
    use proptest::prelude::*;
    use sshsm_protocol::ssh::request::Request;

    fn user(flags: &[&str]) -> Result<CertificateOptions, OptionError> {
        CertificateOptions::parse(CertificateKind::User, flags)
    }

    fn list(entries: &[(&str, Option<&str>)]) -> OptionList {
        entries.iter().map(|(name, contents)| ((*name).to_owned(), contents.map(str::to_owned))).collect()
    }

    #[test]
    fn users_begin_with_five_extensions_and_hosts_with_none() {
        assert_eq!(user(&[]).unwrap().extensions, list(&DEFAULT_EXTENSIONS.map(|name| (name, None))));
        assert_eq!(
            CertificateOptions::parse(CertificateKind::Host, [""; 0]).unwrap(),
            CertificateOptions::default()
        );
    }

    #[test]
    fn flags_work_in_their_order_and_in_any_case() {
        assert_eq!(user(&["CLEAR", "Permit-PTY"]).unwrap().extensions, list(&[("permit-pty", None)]));
        assert_eq!(user(&["permit-pty", "clear"]).unwrap().extensions, OptionList::new());
        assert_eq!(
            user(&["no-touch-required", "clear", "verify-required"]).unwrap(),
            CertificateOptions {
                critical: list(&[("verify-required", None)]),
                extensions: OptionList::new(),
            }
        );
        assert_eq!(user(&["verify-required", "no-verify-required"]).unwrap().critical, OptionList::new());
        assert_eq!(user(&["no-x11-forwarding"]).unwrap().extensions.len(), 4);
    }

    #[test]
    fn a_name_twice_is_one_when_it_says_the_same() {
        assert_eq!(user(&["extension:permit-pty"]), user(&[]));
        for (flags, name) in [
            (["extension:a=1", "extension:a=2"], "a"),
            (["extension:a", "extension:a="], "a"),
            (["extension:permit-pty=x", "permit-pty"], "permit-pty"),
            (["critical:force-command=x", "force-command=y"], "force-command"),
        ] {
            assert_eq!(user(&flags), Err(OptionError::Contradiction { name: name.into() }), "{flags:?}");
        }
        assert_eq!(
            user(&["force-command=a", "force-command=a"]),
            Err(OptionError::Repeated { option: "force-command" })
        );
    }

    #[test]
    fn contents_begin_after_the_first_equals_sign() {
        let options = user(&["clear", "extension:a=b=c", "critical:Foo=", "CRITICAL:bar"]).unwrap();
        assert_eq!(options.extensions, list(&[("a", Some("b=c"))]));
        assert_eq!(options.critical, list(&[("Foo", Some("")), ("bar", None)]));
    }

    #[test]
    fn unknown_and_empty_flags_are_named() {
        for flag in ["", "foo", "permit-pty=x", "permit-", "no-", "permit-everything"] {
            assert_eq!(user(&[flag]), Err(OptionError::Unknown { flag: flag.into() }));
        }
        assert_eq!(user(&["force-command="]), Err(OptionError::Empty { option: "force-command" }));
        assert_eq!(user(&["source-address="]), Err(OptionError::Empty { option: "source-address" }));
        for option in ["force-command", "source-address"] {
            let error = user(&[option]).unwrap_err();
            assert!(
                matches!(error, OptionError::Valueless { option: named, .. } if named == option),
                "{error}"
            );
        }
        assert_eq!(user(&["critical"]), Err(OptionError::Empty { option: "critical:" }));
        assert_eq!(user(&["extension:=x"]), Err(OptionError::Empty { option: "extension:" }));
    }

    #[test]
    fn source_addresses_are_numeric_networks_without_host_bits() {
        for good in [
            "10.0.0.0/8,1.2.3.4",
            "::1/128,fe80::/10",
            "::/0",
            "0.0.0.0/0",
            "10.0.0",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "::ffff:10.0.0.0/104",
            "4294967295",
        ] {
            assert!(user(&[&format!("source-address={good}")]).is_ok(), "{good}");
        }
        for bad in [
            ",",
            "1.2.3.4,",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "!10.0.0.0/8",
            "10.0.0.*",
            "10.0.0.0/",
            "10.0.0.0/+8",
            " 10.0.0.0/8",
            "fe80::1%lo",
            "256.1.1.1",
            "1.2.3.4.5",
            "4294967296",
            "abc",
        ] {
            let error = user(&[&format!("source-address={bad}")]).unwrap_err();
            assert!(matches!(error, OptionError::Address { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn ssh_keygen_writes_the_same_options_and_refuses_the_same_flags() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        keygen.key("ca", "ed25519", "");
        keygen.key("subject", "ed25519", "");
        let cases: [&[&str]; 44] = [
            &[],
            &["clear"],
            &["CLEAR", "Permit-PTY"],
            &["permit-pty", "clear"],
            &[
                "clear",
                "permit-X11-forwarding",
                "permit-agent-forwarding",
                "permit-port-forwarding",
                "permit-user-rc",
            ],
            &["no-x11-forwarding", "no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc"],
            &["no-touch-required", "verify-required"],
            &["no-touch-required", "touch-required", "verify-required", "no-verify-required"],
            &["verify-required", "no-touch-required", "clear"],
            &["force-command=/bin/echo a=b,c", "clear"],
            &["force-command="],
            &["force-command=a", "force-command=a"],
            &["force-command=a", "critical:other", "critical:zz=1"],
            &["extension:a=b=c", "EXTENSION:Aa", "extension:zz=", "extension:aa=\u{e4}"],
            &["critical:x@example.com=1", "extension:x@example.com=2"],
            &["foo"],
            &[""],
            &["permit-pty=x"],
            &["permit-"],
            &["no-"],
            &["critical"],
            &["source-address="],
            &["source-address=10.0.0.0/8,1.2.3.4"],
            &["source-address=::1/128,fe80::/10,::/0,0.0.0.0/0"],
            &["source-address=10.0.0"],
            &["source-address=010.0.0.0/8"],
            &["source-address=08.0.0.0/8"],
            &["source-address=4294967295"],
            &["source-address=4294967296"],
            &["source-address=1.2.65535"],
            &["source-address=1.2.65536"],
            &["source-address=10.0.0.0/08"],
            &["source-address=10.0.0.0/33"],
            &["source-address=10.0.0.1/8"],
            &["source-address=::ffff:10.0.0.0/104"],
            &["source-address=fe80::1%lo"],
            &["source-address=10.0.0.0/"],
            &["source-address=10.0.0.0/+8"],
            &["source-address=!10.0.0.0/8"],
            &["source-address=10.0.0.*"],
            &["source-address=1.2.3.4,"],
            &["source-address=1.2.3.4,,::1"],
            &["source-address=1.2.3.4, ::1"],
            &["source-address=0000:0000:0000:0000:0000:ffff:255.255.255.255/00000000128"],
        ];
        for flags in cases {
            for kind in [CertificateKind::User, CertificateKind::Host] {
                let ours = CertificateOptions::parse(kind, flags).ok();
                let mut arguments = vec!["-I", "id"];
                arguments.extend(flags.iter().flat_map(|flag| ["-O", flag]));
                arguments.extend((kind == CertificateKind::Host).then_some("-h"));
                let theirs = keygen.sign("UTC", "ca", "subject", &arguments).ok().map(|line| {
                    let bytes = to_be_signed(&line);
                    let request = Request::decode(&bytes).unwrap();
                    let [critical, extensions] =
                        [request.critical_options, request.extensions].map(|options| {
                            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                            options.iter().map(|(name, contents)| (text(name), contents.map(text))).collect()
                        });
                    CertificateOptions { critical, extensions }
                });
                assert_eq!(ours, theirs, "{flags:?} {kind}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_flag_makes_the_reader_panic(flag in "(critical:|source-address=|)[0-9a-fx.:/=,é-]{0,60}") {
            let _ = user(&[&flag]);
        }
    }
}
