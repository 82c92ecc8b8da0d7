//! Signing, encryption, users and trust.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gemba_drivers::opcua::{Client, Config, Identity, Mode, Pki, Policy, Security};
use gemba_drivers::sim::opcua::Secure;
use gemba_drivers::{Driver, LinkError, TagId, Time, Validity, Value};
use opcua::crypto::SecurityPolicy;
use rcgen::SanType;
use rcgen::string::Ia5String;

use crate::certificates::{Says, key, other_key, pki, secure, secure_server, secured, secured_with, trust};
use crate::rig::{Supervised, config, soon, until};

/// Whether the driver gets in, and if not, why.
async fn knock(config: Config) -> Result<(), LinkError> {
    let mut client = Client::new(config);
    let outcome = soon(client.connect()).await;
    client.close().await;
    outcome
}

async fn refused(config: Config) -> String {
    let error = knock(config).await.expect_err("refused");
    assert!(matches!(error, LinkError::Refused(_)), "{error:?}");
    error.to_string()
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn every_policy_and_mode_reads() {
    let certificate = Says::default().made();
    let server = secure_server([("Good", 41_i64)], secure(&certificate)).await;
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    for policy in Policy::ALL {
        for mode in Mode::ALL {
            let mut link = Supervised::start(secured_with(&server.endpoint(), &["Good"], pki.folder(), policy, mode));
            let first = link.next_of(TagId(0)).await;
            assert_eq!((&first.value, first.validity), (&Value::Int(41), Validity::Good), "{policy:?} {mode:?}");
            link.stop().await;
        }
    }
    until("every session was closed", || server.sessions() == 0).await;
}

/// Keys wear out: each minute or hour the channel gets new ones, in the middle of the traffic.
#[tokio::test]
async fn a_session_outlives_its_channels_keys() {
    const LIFETIME: Duration = Duration::from_millis(300);
    let certificate = Says::default().made();
    let told = Secure { keys_last_ms: 300, ..secure(&certificate) };
    let server = secure_server([("Good", 0_i64)], told).await;
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    for (policy, mode) in [(Policy::Basic256Sha256, Mode::Sign), (Policy::Aes256Sha256RsaPss, Mode::SignAndEncrypt)] {
        let mut link = Supervised::start(secured_with(&server.endpoint(), &["Good"], pki.folder(), policy, mode));
        link.next_of(TagId(0)).await;
        let begun = Instant::now();
        for count in 1_i64.. {
            server.set("Good", count, Time::now());
            let reading = link.next_of(TagId(0)).await;
            assert_eq!((reading.value, reading.validity), (Value::Int(count), Validity::Good), "{:?}", link.state());
            if begun.elapsed() > 6 * LIFETIME {
                break;
            }
        }
        assert_eq!(link.state().connects, 1);
        link.stop().await;
    }
}

#[tokio::test]
async fn a_server_is_let_in_once_it_is_accepted_and_not_before() {
    let certificate = Says::default().made();
    let server = secure_server([("Good", 41_i64)], secure(&certificate)).await;
    let (_folder, pki) = pki();
    let config = secured(&server.endpoint(), &["Good"], pki.folder());

    let said = refused(config.clone()).await;
    let all = pki.list().expect("readable");
    let [rejected] = all.as_slice() else { panic!("{all:?}") };
    let thumbprint = &rejected.certificate.thumbprint;
    let command = format!("`gemba trust accept {} --pki {}`", &thumbprint[..12], pki.folder().display());
    for part in [thumbprint, "CN=aoi-1", "2020-01-01T00:00:00Z", "2060-01-01T00:00:00Z", &command] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(rejected.certificate.der(), certificate);
    assert_eq!(server.sessions(), 0, "it was told nothing but that we are here");
    refused(config.clone()).await;
    assert_eq!(pki.list().expect("readable").len(), 1, "the second time is no second certificate");

    pki.accept(&thumbprint[..12]).expect("there");
    knock(config.clone()).await.expect("let in");
    pki.reject(thumbprint).expect("there");
    assert!(refused(config).await.contains("is not trusted"));
}

#[tokio::test]
async fn a_trusted_certificate_must_still_be_in_time_and_the_right_servers() {
    let name = |name: &str| SanType::DnsName(Ia5String::try_from(name).expect("ASCII"));
    let cases = [
        (Says { years: (2020, 2021), ..Says::default() }, "expired at 2021-01-01T00:00:00Z"),
        (Says { years: (2059, 2060), ..Says::default() }, "is not valid before 2059-01-01T00:00:00Z"),
        (Says { host: name("PLC_1"), ..Says::default() }, "is for `PLC_1`, not for `127.0.0.1`"),
        (Says { uri: "urn:other", ..Says::default() }, "calls itself `urn:gemba:sim`, and its certificate"),
    ];
    for (says, expected) in cases {
        let certificate = says.made();
        let server = secure_server([("Good", 41_i64)], secure(&certificate)).await;
        let (_folder, pki) = pki();
        trust(&pki, &certificate);
        let said = refused(secured(&server.endpoint(), &["Good"], pki.folder())).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test]
async fn a_plc_that_thinks_it_has_another_name_is_reached_where_we_found_it() {
    let certificate = Says { host: SanType::DnsName("PLC_1".try_into().expect("ASCII")), ..Says::default() }.made();
    let told = Secure { host: Some("PLC_1.invalid".to_owned()), ..secure(&certificate) };
    let server = secure_server([("Good", 41_i64)], told).await;
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    let mut config = secured(&server.endpoint(), &["Good"], pki.folder());
    assert!(refused(config.clone()).await.contains("`verify_host: false`"));
    let Security::Secured(secured) = &mut config.security else { panic!("secured") };
    secured.verify_host = false;
    let mut link = Supervised::start(config);
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(41));
    link.stop().await;
}

#[tokio::test]
async fn our_certificate_is_made_once_and_its_key_is_for_nobody() {
    let certificate = Says::default().made();
    let server = secure_server([("Good", 41_i64)], secure(&certificate)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::at(folder.path().join("pki"));
    assert!(pki.own().expect("nothing to read").is_none());
    // Two links that start together.
    let config = || secured(&server.endpoint(), &["Good"], pki.folder());
    let (one, two) = tokio::join!(refused(config()), refused(config()));
    assert_eq!(one, two);

    let own = pki.own().expect("readable").expect("made");
    let private = pki.folder().join("private/private.pem");
    assert_eq!(
        (mode_of(&private), mode_of(&pki.folder().join("private")), mode_of(pki.folder())),
        (0o600, 0o700, 0o700)
    );
    let uri = own.application_uri.as_deref().expect("there");
    let host = &own.hosts[0];
    assert_eq!(uri, format!("urn:{host}:gemba"));
    assert_eq!(own.key_bits(), Some(2_048));

    fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).expect("ours");
    pki.accept(&pki.list().expect("readable")[0].certificate.thumbprint).expect("there");
    knock(config()).await.expect("let in");
    assert_eq!(mode_of(&private), 0o600, "set right again");
    assert_eq!(pki.own().expect("readable").expect("there").thumbprint, own.thumbprint, "kept");

    let renewed = pki.renew().expect("made");
    assert_ne!(renewed.thumbprint, own.thumbprint);
    assert_ne!(renewed.subject, own.subject, "one issuer has one certificate of a number");
    knock(config()).await.expect("let in with the new one");
}

#[tokio::test]
async fn a_certificate_of_ours_that_is_of_no_use_says_how_to_make_another() {
    let (_folder, pki) = pki();
    let own = |certificate: &[u8]| {
        fs::create_dir_all(pki.folder().join("own")).expect("made");
        fs::write(pki.folder().join("own/cert.der"), certificate).expect("written");
    };
    let config = || secured("opc.tcp://127.0.0.1:1", &["Good"], pki.folder());
    let renew = format!("`gemba trust renew --pki {}`", pki.folder().display());

    own(&Says { years: (2020, 2021), ..Says::default() }.made());
    let said = refused(config()).await;
    assert!(said.contains("expired at 2021-01-01T00:00:00Z") && said.contains(&renew), "{said}");

    own(&Says::default().made());
    fs::write(pki.folder().join("private/private.pem"), other_key()).expect("written");
    let said = refused(config()).await;
    assert!(said.contains("cert.der does not belong to the key") && said.contains(&renew), "{said}");

    fs::write(pki.folder().join("private/private.pem"), "nonsense").expect("written");
    let said = refused(config()).await;
    assert!(said.contains("private.pem: no RSA key") && said.contains(&renew), "{said}");
}

#[tokio::test]
async fn users_come_in_with_their_password() {
    let certificate = Says::default().made();
    let user = Some(("ada".to_owned(), "hunter2".to_owned()));
    let told = Secure { anonymous: false, user, ..secure(&certificate) };
    let server = secure_server([("Good", 41_i64)], told).await;
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    for (policy, mode) in [(Policy::Basic256Sha256, Mode::Sign), (Policy::Aes256Sha256RsaPss, Mode::SignAndEncrypt)] {
        let user = |name: &str, password: &str| Config {
            identity: Identity::User { name: name.to_owned(), password: password.to_owned() },
            ..secured_with(&server.endpoint(), &["Good"], pki.folder(), policy, mode)
        };
        let mut link = Supervised::start(user("ada", "hunter2"));
        assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(41));
        link.stop().await;
        for (name, password) in [("ada", "hunter3"), ("bob", "hunter2"), ("ada", "")] {
            let said = refused(user(name, password)).await;
            assert!(said.contains("does not let this user in"), "{said}");
            assert!(!said.contains("hunter"), "{said}");
            assert_eq!(server.sessions(), 0, "a try leaves nothing behind");
        }
    }
    let said = refused(secured(&server.endpoint(), &["Good"], pki.folder())).await;
    assert!(said.contains("no endpoint with basic256sha256 sign_and_encrypt for anonymous users"), "{said}");
    assert!(said.contains("aes128 sign (user name)"), "{said}");
}

/// Writes a user's certificate and key in both encodings.
fn user_files(folder: &Path, certificate: &[u8]) -> [(PathBuf, PathBuf); 2] {
    let at = |name: &str| folder.join(name);
    let pem = |label: &'static str, der: &[u8]| {
        x509_cert::der::SecretDocument::try_from(der).expect("DER").to_pem(label, x509_cert::der::pem::LineEnding::LF)
    };
    fs::write(at("user.der"), certificate).expect("written");
    fs::write(at("user.pem"), pem("CERTIFICATE", certificate).expect("encodes").as_bytes()).expect("written");
    fs::write(at("key.pem"), key()).expect("written");
    let (_, der) = x509_cert::der::SecretDocument::from_pem(key()).expect("PEM");
    fs::write(at("key.der"), der.as_bytes()).expect("written");
    [(at("user.der"), at("key.pem")), (at("user.pem"), at("key.der"))]
}

#[tokio::test]
async fn users_come_in_with_their_certificate() {
    let certificate = Says::default().made();
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    let files = tempfile::tempdir().expect("a folder");
    let users = user_files(files.path(), &Says { name: "ada", ..Says::default() }.made());
    let told = Secure { anonymous: false, user_certificate: Some(users[0].0.clone()), ..secure(&certificate) };
    let server = secure_server([("Good", 41_i64)], told).await;
    let user = |certificate: &Path, key: &Path| Config {
        identity: Identity::Certificate { certificate: certificate.to_owned(), key: key.to_owned() },
        ..secured(&server.endpoint(), &["Good"], pki.folder())
    };
    for (certificate, key) in &users {
        let mut link = Supervised::start(user(certificate, key));
        assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(41));
        link.stop().await;
    }

    let at = |name: &str, bytes: &[u8]| {
        let path = files.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let (ada, ada_key) = &users[0];
    let bob = at("bob.der", &Says { name: "bob", ..Says::default() }.made());
    let old = at("old.der", &Says { name: "ada", years: (2020, 2021), ..Says::default() }.made());
    let alien_key = at("alien.pem", other_key().as_bytes());
    let locked =
        at("locked.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    for (certificate, key, expected) in [
        (&bob, ada_key, "does not let this user in"),
        (&old, ada_key, "old.der: expired at 2021-01-01T00:00:00Z"),
        (ada, &alien_key, "alien.pem: the key does not belong to the certificate in"),
        (ada, &locked, "locked.pem: the key is locked by a passphrase"),
        (ada, ada, "user.der: no RSA key in PEM or DER"),
        (ada_key, ada_key, "key.pem: no certificate in"),
        (&files.path().join("gone"), ada_key, "gone: No such file"),
    ] {
        let said = refused(user(certificate, key)).await;
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(server.sessions(), 0, "a try leaves nothing behind");
    }
}

#[tokio::test]
async fn what_the_server_offers_instead_is_told() {
    let certificate = Says::default().made();
    let told = Secure { policies: vec![SecurityPolicy::Aes128Sha256RsaOaep], ..secure(&certificate) };
    let server = secure_server([("Good", 41_i64)], told).await;
    let (_folder, pki) = pki();
    let said = refused(secured(&server.endpoint(), &["Good"], pki.folder())).await;
    assert_eq!(
        said,
        "refused: no endpoint with basic256sha256 sign_and_encrypt for anonymous users; the server offers aes128 sign \
         (anonymous), aes128 sign_and_encrypt (anonymous)"
    );
    let said = refused(config(&server.endpoint(), &["Good"])).await;
    assert!(said.contains("no endpoint without security for anonymous users"), "{said}");
}

#[tokio::test]
async fn a_server_that_does_not_know_us_yet_is_tried_until_it_does() {
    let certificate = Says::default().made();
    let told = Secure { trusts_all: false, ..secure(&certificate) };
    let server = secure_server([("Good", 41_i64)], told).await;
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    let config = secured(&server.endpoint(), &["Good"], pki.folder());
    let said = refused(config.clone()).await;
    assert!(said.contains("accept it there"), "{said}");
    assert!(server.trust_who_came(), "it has our certificate to accept");
    knock(config).await.expect("let in");
}
