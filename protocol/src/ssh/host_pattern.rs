//! The principals of a host certificate, as `ssh` reads them: patterns of host names.
//!
//! OpenSSH 10.3 and later pass the host's name and each principal to `match_pattern`
//! (`sshkey_cert_check_authority` in `sshkey.c`, `match.c`): `*` matches any bytes, including none, `?`
//! matches exactly one, and every other byte matches itself. There is no escape and no negation. Older
//! releases compare whole names. `ssh` converts a host's name to lower case before it compares (`ssh_login`
//! in `sshconnect.c`), but not the `HostKeyAlias` that may replace it. The principals of user certificates
//! are names in every release.

/// One principal of a host certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPattern<'a>(&'a [u8]);

impl<'a> HostPattern<'a> {
    /// Every principal is one.
    #[must_use]
    pub const fn new(principal: &'a [u8]) -> Self {
        Self(principal)
    }

    /// Whether it matches only itself.
    #[must_use]
    pub fn is_name(&self) -> bool {
        !self.0.iter().any(is_wildcard)
    }

    /// The part before its first wildcard: every matching host begins with it.
    #[must_use]
    pub fn beginning(&self) -> &'a [u8] {
        self.0.split(is_wildcard).next().unwrap_or(self.0)
    }

    /// The part after its last wildcard: every matching host ends with it.
    #[must_use]
    pub fn end(&self) -> &'a [u8] {
        self.0.rsplit(is_wildcard).next().unwrap_or(self.0)
    }

    /// Whether it matches this host, ignoring case: `ssh` reaches `Web` as `web`.
    #[must_use]
    pub fn stands_for(&self, host: &[u8]) -> bool {
        let (mut pattern, mut rest) = (self.0, host);
        // The position after the last `*`, and the end of the bytes that it matches: one further with every
        // attempt.
        let mut last: Option<(&[u8], &[u8])> = None;
        loop {
            (pattern, rest) = match (pattern, rest) {
                ([b'*', behind @ ..], rest) => {
                    last = Some((behind, rest));
                    (behind, rest)
                }
                ([b'?', behind @ ..], [_, rest @ ..]) => (behind, rest),
                ([byte, behind @ ..], [other, rest @ ..]) if byte.eq_ignore_ascii_case(other) => {
                    (behind, rest)
                }
                ([], []) => return true,
                _ => {
                    let Some((behind, [_, rest @ ..])) = last else { return false };
                    last = Some((behind, rest));
                    (behind, rest)
                }
            };
        }
    }
}

const fn is_wildcard(byte: &u8) -> bool {
    matches!(byte, b'*' | b'?')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stands_for(pattern: &str, host: &str) -> bool {
        HostPattern::new(pattern.as_bytes()).stands_for(host.as_bytes())
    }

    #[test]
    fn wildcards_stand_for_what_openssh_matches() {
        for (pattern, host) in [
            ("web", "web"),
            ("*", ""),
            ("*", "bastion.example.com"),
            ("**", "a"),
            ("b?stion.example.com", "bastion.example.com"),
            ("*.example.com", ".example.com"),
            ("*.example.com", "a.b.example.com"),
            ("b*n.*.com", "bastion.example.com"),
            ("*a*a", "aa"),
            ("*ab", "aab"),
            ("?*", "a"),
            ("a\\*", "a\\b"),
            ("[ab]", "[ab]"),
            ("!a", "!a"),
            ("WEB", "web"),
            ("w*", "Web"),
        ] {
            assert!(stands_for(pattern, host), "{pattern} {host}");
        }
        for (pattern, host) in [
            ("web", "we"),
            ("web", "webs"),
            ("", "a"),
            ("?", ""),
            ("?", "ab"),
            ("*.example.com", "example.com"),
            ("b?stion", "bstion"),
            ("*a*a", "a"),
            ("a*b", "abc"),
            ("\\*", "a"),
            ("[ab]", "a"),
            ("!a", "b"),
        ] {
            assert!(!stands_for(pattern, host), "{pattern} {host}");
        }
    }

    #[test]
    fn what_stands_before_and_after_the_wildcards_is_told() {
        for (text, is_name, beginning, end) in [
            ("web", true, "web", "web"),
            ("*.example.com", false, "", ".example.com"),
            ("web?", false, "web", ""),
            ("a*b?c", false, "a", "c"),
            ("", true, "", ""),
        ] {
            let pattern = HostPattern::new(text.as_bytes());
            let told = (pattern.is_name(), pattern.beginning(), pattern.end());
            assert_eq!(told, (is_name, beginning.as_bytes(), end.as_bytes()), "{text}");
        }
    }

    /// A transcription of OpenSSH's function.
    fn match_pattern(host: &[u8], pattern: &[u8]) -> bool {
        match (pattern, host) {
            ([], host) => host.is_empty(),
            ([b'*', behind @ ..], host) => {
                (0..=host.len()).any(|skipped| match_pattern(&host[skipped..], behind))
            }
            (_, []) => false,
            ([byte, behind @ ..], [other, rest @ ..]) => {
                (*byte == b'?' || byte == other) && match_pattern(rest, behind)
            }
        }
    }

    proptest! {
        #[test]
        fn every_pattern_agrees_with_a_simple_reading(pattern in "[*?ab]{0,7}", host in "[ab?]{0,7}") {
            let expected = match_pattern(host.as_bytes(), pattern.as_bytes());
            prop_assert_eq!(stands_for(&pattern, &host), expected);
            prop_assert_eq!(stands_for(&pattern.to_uppercase(), &host), expected);
            prop_assert_eq!(stands_for(&pattern, &host.to_uppercase()), expected);
        }
    }
}
