//! Certificates against the real `sshd` and `ssh`: who gets in, who does not, and for which reason. Each
//! refusal is read in the server's own log, so that no test passes for another cause.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    for_each_issuer,
    issuer::{Flags, Issuer},
    key::{Key, KeyType, ssh_keygen},
    needs,
    process::{Finished, run},
    requirement::Missing,
    ssh::{GREETING, Ssh},
    sshd::{Server, Sshd, user},
};
use std::{fs, path::PathBuf, slice};
use tempfile::{TempDir, tempdir};

for_each_issuer!(
    every_authority_and_user_key_logs_in,
    a_zone_lets_in_only_its_own_principals,
    certificates_are_good_only_within_their_validity,
    another_authority_is_not_trusted,
    a_revocation_list_shuts_out_what_it_names,
    options_bind_the_one_who_logs_in,
    a_host_certificate_proves_the_host_by_name,
    the_same_certificate_goes_through_a_bastion,
);

/// An authority in service, and a user's key that it can certify.
struct Scene<I> {
    authority: Key,
    issuer: I,
    user: Key,
    directory: TempDir,
}

impl<I: Issuer> Scene<I> {
    fn new(authority: KeyType) -> Result<Self, Missing> {
        let directory = tempdir().unwrap();
        let authority = Key::generate(directory.path(), "ca", authority)?;
        let issuer = I::with_authority(&authority)?;
        let user = Key::generate(directory.path(), "user", KeyType::Ed25519)?;
        Ok(Self { authority, issuer, user, directory })
    }

    /// Certifies the user's key and logs in with it.
    fn visit(&self, flags: &Flags, sshd: &Sshd) -> Result<Visit, Missing> {
        let _ = self.issuer.sign(flags, slice::from_ref(&self.user)).success();
        Visit::with(&self.user, sshd)
    }
}

/// The output of both sides for one login attempt.
struct Visit {
    client: Finished,
    log: String,
}

/// Why `sshd` turns a certificate away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reason {
    WrongZone,
    Expired,
    NotYetValid,
    OtherAuthority,
    Revoked,
    SourceAddress,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::WrongZone,
        Self::Expired,
        Self::NotYetValid,
        Self::OtherAuthority,
        Self::Revoked,
        Self::SourceAddress,
    ];

    /// How its log puts it.
    fn phrase(self) -> &'static str {
        match self {
            Self::WrongZone => "Certificate does not contain an authorized principal",
            Self::Expired => "Certificate invalid: expired",
            Self::NotYetValid => "Certificate invalid: not yet valid",
            Self::OtherAuthority => "is not listed in",
            Self::Revoked => "revoked by file",
            Self::SourceAddress => "not from a permitted source address",
        }
    }
}

impl Visit {
    /// Logs in with a key and its certificate.
    fn with(key: &Key, sshd: &Sshd) -> Result<Self, Missing> {
        let ssh = Ssh::with_certificate(key).knowing("server", sshd);
        let (client, log) = sshd.visit(|| ssh.login("server"))?;
        Ok(Self { client, log })
    }

    #[track_caller]
    fn came_in(&self) {
        assert!(self.client.status.success(), "{}\n--- sshd\n{}", self.client, self.log);
        assert_eq!(self.client.stdout.trim(), GREETING);
        assert!(self.log.contains(&format!("Accepted publickey for {} ", user())), "{}", self.log);
    }

    /// Turned away for `reason`, and for no other.
    #[track_caller]
    fn was_refused(&self, reason: Reason) {
        assert_eq!(self.client.status.code(), Some(255), "{}\n--- sshd\n{}", self.client, self.log);
        assert!(self.client.stderr.contains("Permission denied (publickey)"), "{}", self.client);
        assert!(!self.log.contains("Accepted publickey"), "{}", self.log);
        for other in Reason::ALL {
            assert_eq!(self.log.contains(other.phrase()), other == reason, "{other:?} in\n{}", self.log);
        }
    }
}

fn every_authority_and_user_key_logs_in<I: Issuer>() {
    let directory = tempdir().unwrap();
    let users = needs!(Key::generate_all(directory.path(), &KeyType::AUTHORITIES));
    let mut server = Server { principals: vec!["zone-web"], ..Server::default() };
    let mut issuers = Vec::new();
    for authority_type in KeyType::AUTHORITIES {
        let authority =
            needs!(Key::generate(directory.path(), &format!("ca-{authority_type:?}"), authority_type));
        issuers.push(needs!(I::with_authority(&authority)));
        server.trusted.push(authority);
    }
    let authorities = server.trusted.clone();
    let sshd = needs!(server.start());
    for (issuer, authority) in issuers.iter().zip(&authorities) {
        let flags = Flags::user(&["zone-web"]).key_id("alice@example.com").serial("4711").valid("-1m:+1h");
        let _ = issuer.sign(&flags, &users).success();
        for user in &users {
            let visit = needs!(Visit::with(user, &sshd));
            visit.came_in();
            let identity = format!(
                "{}-CERT {} ID alice@example.com (serial 4711) CA {} {}",
                user.key_type.display_name(),
                user.fingerprint(),
                authority.key_type.display_name(),
                authority.fingerprint()
            );
            assert!(visit.log.contains(&identity), "{identity} is not in\n{}", visit.log);
        }
    }
}

fn a_zone_lets_in_only_its_own_principals<I: Issuer>() {
    let scene = needs!(Scene::<I>::new(KeyType::Ed25519));
    let web = needs!(Server::trusting(&scene.authority, &["zone-web", "admins"]).start());
    let database = needs!(Server::trusting(&scene.authority, &["zone-database", "admins"]).start());
    let visit = |principals: &[&str], sshd| scene.visit(&Flags::user(principals), sshd);
    needs!(visit(&["zone-web"], &web)).came_in();
    needs!(visit(&["zone-web"], &database)).was_refused(Reason::WrongZone);
    needs!(visit(&["zone-database"], &web)).was_refused(Reason::WrongZone);
    needs!(visit(&["zone-database"], &database)).came_in();
    for sshd in [&web, &database] {
        needs!(visit(&["zone-web", "zone-database"], sshd)).came_in();
        needs!(visit(&["admins"], sshd)).came_in();
        // With a principals file the user's own name counts for nothing.
        needs!(visit(&[&user()], sshd)).was_refused(Reason::WrongZone);
    }
}

fn certificates_are_good_only_within_their_validity<I: Issuer>() {
    let scene = needs!(Scene::<I>::new(KeyType::P256));
    let sshd = needs!(Server::trusting(&scene.authority, &["zone-web"]).start());
    let visit = |validity| scene.visit(&Flags::user(&["zone-web"]).valid(validity), &sshd);
    needs!(visit("-5m:+10h")).came_in();
    needs!(visit("-2d:-1d")).was_refused(Reason::Expired);
    needs!(visit("-1h:-1s")).was_refused(Reason::Expired);
    needs!(visit("+1h:+2h")).was_refused(Reason::NotYetValid);
    needs!(visit("always:forever")).came_in();
}

fn another_authority_is_not_trusted<I: Issuer>() {
    let trusted = needs!(Scene::<I>::new(KeyType::Ed25519));
    let other = needs!(Scene::<I>::new(KeyType::Ed25519));
    let sshd = needs!(Server::trusting(&trusted.authority, &["zone-web"]).start());
    let flags = Flags::user(&["zone-web"]).valid("+1h");
    needs!(other.visit(&flags, &sshd)).was_refused(Reason::OtherAuthority);
    needs!(trusted.visit(&flags, &sshd)).came_in();
}

fn a_revocation_list_shuts_out_what_it_names<I: Issuer>() {
    let scene = needs!(Scene::<I>::new(KeyType::Ed25519));
    for revoked in ["serial: 7", "serial: 5-7", "id: mallory"] {
        let sshd = needs!(
            Server {
                revoked: Some(needs!(revocation_list(&scene, revoked))),
                ..Server::trusting(&scene.authority, &["zone-web"])
            }
            .start()
        );
        let visit = |serial, key_id| {
            scene.visit(&Flags::user(&["zone-web"]).valid("+1h").serial(serial).key_id(key_id), &sshd)
        };
        needs!(visit("7", "mallory")).was_refused(Reason::Revoked);
        needs!(visit("8", "alice")).came_in();
    }
}

/// A key revocation list of `ssh-keygen -k`'s, for certificates of the scene's authority.
fn revocation_list<I>(scene: &Scene<I>, specification: &str) -> Result<PathBuf, Missing> {
    let [input, list] = ["specification", "revoked"].map(|name| scene.directory.path().join(name));
    fs::write(&input, format!("{specification}\n")).unwrap();
    let mut ssh_keygen = ssh_keygen()?;
    ssh_keygen.args(["-q", "-k", "-f"]).arg(&list).arg("-s").arg(&scene.authority.public).arg(&input);
    let _ = run(&mut ssh_keygen).success();
    Ok(list)
}

fn options_bind_the_one_who_logs_in<I: Issuer>() {
    let scene = needs!(Scene::<I>::new(KeyType::Ed25519));
    let sshd = needs!(Server::trusting(&scene.authority, &["zone-web"]).start());
    let visit = |option| scene.visit(&Flags::user(&["zone-web"]).options(&[option]), &sshd);
    let forced = needs!(visit("force-command=echo forced")).client.success();
    assert_eq!(forced.stdout.trim(), "forced");
    needs!(visit("source-address=127.0.0.0/8")).came_in();
    needs!(visit("source-address=192.0.2.0/24")).was_refused(Reason::SourceAddress);
}

fn a_host_certificate_proves_the_host_by_name<I: Issuer>() {
    let scene = needs!(Scene::<I>::new(KeyType::Ed25519));
    let host = needs!(Key::generate(scene.directory.path(), "host", KeyType::P256));
    let names = Flags::host(&["web.example.com"]).valid("-1m:+1h");
    let _ = scene.issuer.sign(&names, slice::from_ref(&host)).success();
    let _ = scene.issuer.sign(&Flags::user(&["zone-web"]), slice::from_ref(&scene.user)).success();
    let other = needs!(Key::generate(scene.directory.path(), "other-ca", KeyType::Ed25519));
    let sshd =
        needs!(Server { host: Some(host), ..Server::trusting(&scene.authority, &["zone-web"]) }.start());
    let login = |name, authority| {
        let ssh = Ssh::with_certificate(&scene.user).trusting("*.example.com", authority);
        sshd.visit(|| ssh.reaching(name, &sshd, "").login(name))
    };
    let (client, log) = needs!(login("web.example.com", &scene.authority));
    Visit { client, log }.came_in();
    for (name, authority, reason) in [
        ("db.example.com", &scene.authority, "Certificate invalid: name is not a listed principal"),
        ("web.example.com", &other, "Host key verification failed"),
        ("web.example.org", &scene.authority, "Host key verification failed"),
    ] {
        let (client, log) = needs!(login(name, authority));
        assert_eq!(client.status.code(), Some(255), "{client}");
        assert!(client.stderr.contains(reason), "{client}");
        assert!(!log.contains("Accepted"), "{log}");
    }
}

fn the_same_certificate_goes_through_a_bastion<I: Issuer>() {
    let scene = needs!(Scene::<I>::new(KeyType::P384));
    let bastion = needs!(Server::trusting(&scene.authority, &["zone-bastion"]).start());
    let target = needs!(Server::trusting(&scene.authority, &["zone-web"]).start());
    let jump = |flags: &Flags| {
        let _ = scene.issuer.sign(flags, slice::from_ref(&scene.user)).success();
        let ssh = Ssh::with_certificate(&scene.user)
            .knowing("bastion", &bastion)
            .knowing("target", &target)
            .reaching("target", &target, "ProxyJump bastion\n");
        bastion.visit(|| ssh.login("target")).map(|(client, log)| Visit { client, log })
    };
    let both = Flags::user(&["zone-bastion", "zone-web"]).valid("+1h");
    let visit = needs!(jump(&both));
    visit.came_in();
    let forwarded = format!("target 127.0.0.1 port {}", target.port());
    assert!(visit.log.contains(&forwarded), "the bastion did not connect onwards:\n{}", visit.log);

    // The bastion's own rules and the certificate's hold on the way.
    needs!(jump(&Flags::user(&["zone-web"]))).was_refused(Reason::WrongZone);
    let confined = needs!(jump(&both.options(&["no-port-forwarding"])));
    assert_eq!(confined.client.status.code(), Some(255), "{}", confined.client);
    assert!(confined.client.stderr.contains("administratively prohibited"), "{}", confined.client);
    assert!(confined.log.contains("Accepted publickey"), "{}", confined.log);
}
