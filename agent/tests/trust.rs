//! `gemba trust` as a commissioning engineer meets it, with a secured server in process.
#![cfg(feature = "demo")]

use std::path::Path;
use std::process::{Command, Stdio};

use gemba::config::{Config, Source};
use gemba_drivers::opcua::pki::Certificate;
use gemba_drivers::opcua::{Client, Pki};
use gemba_drivers::sim::opcua::{OpcuaServer, Secure};
use gemba_drivers::{Driver, LinkError, Time};

/// Exit code, standard output, standard error.
fn gemba(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gemba")).args(args).stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn trust(what: &str, folder: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let folder = folder.to_str().expect("UTF-8");
    gemba(&[&["trust", what, "--pki", folder][..], more].concat())
}

async fn knock(config: &Config) -> Result<(), LinkError> {
    let Source::Opcua(told) = &config.links[0].source else { panic!("{:?}", config.links) };
    let mut client = Client::new(told.clone());
    let outcome = client.connect().await;
    client.close().await;
    outcome
}

#[tokio::test]
async fn the_command_in_the_message_lets_the_server_in() {
    let server = OpcuaServer::start_secure("urn:fab", [("Good", 1_i64)], Time::now(), Secure::self_made());
    let server = server.await.expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    // A space in the path: the command must still be one to paste.
    let root = folder.path().join("line 1");
    std::fs::create_dir(&root).expect("made");
    let file = root.join("line.yaml");
    let yaml = format!(
        "{{ site: s, line: l, timezone: UTC, spool: {{ path: '{}' }}, stations: [ {{ name: a, \
         source: {{ type: opcua, endpoint: '{}', security: basic256sha256 }}, \
         tags: [{{ name: t, node: 'nsu=urn:fab;s=Good' }}] }} ] }}",
        root.join("spool").display(),
        server.endpoint()
    );
    std::fs::write(&file, yaml).expect("written");
    let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.pki, root.join("pki"));
    let file = file.to_str().expect("UTF-8");

    let (code, out, _) = gemba(&["trust", "list", "--config", file]);
    assert_eq!((code, out.starts_with("no certificates yet in ")), (Some(0), true), "{out}");
    let (code, out, _) = gemba(&["trust", "show", "--config", file]);
    assert_eq!((code, out.contains("gemba trust renew")), (Some(0), true), "{out}");

    let said = knock(&config).await.expect_err("nobody has accepted it").to_string();
    let (code, out, _) = gemba(&["trust", "list", "--config", file]);
    let words: Vec<_> = out.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!((code, words.as_slice()), (Some(0), ["own", "rejected"].as_slice()), "{out}");
    assert!(out.contains("CN=gemba simulated server") && out.contains("urn:gemba:sim"), "{out}");

    let command = said.split('`').find(|part| part.starts_with("gemba trust accept")).expect("a command");
    let typed = command.replacen("gemba", env!("CARGO_BIN_EXE_gemba"), 1);
    let shell = Command::new("sh").args(["-c", &typed]).output().expect("a shell");
    assert!(shell.status.success(), "{typed}: {shell:?}");
    knock(&config).await.expect("let in");

    let (_, out, _) = gemba(&["trust", "list", "--config", file]);
    let line = out.lines().find(|line| line.contains("trusted")).expect("it is listed").to_owned();
    let thumbprint = line.split_whitespace().nth(1).expect("a thumbprint");
    let (code, out, _) = gemba(&["trust", "show", "--config", file, &thumbprint[..6].to_uppercase()]);
    assert_eq!(code, Some(0));
    for part in [thumbprint, "trusted", "urn:gemba:sim", "127.0.0.1", "RSA, 2048 bits"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, ..) = gemba(&["trust", "reject", "--config", file, thumbprint]);
    assert_eq!(code, Some(0));
    assert!(matches!(knock(&config).await, Err(LinkError::Refused(_))));
}

#[test]
fn a_thumbprint_must_stand_for_one_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::at(folder.path());
    // Enough strangers that two of them begin alike: nobody looks at a signature that nobody has to believe.
    let mut stranger = pki.renew().expect("made").der().to_vec();
    let mut firsts = Vec::new();
    for last in 0..17 {
        *stranger.last_mut().expect("not empty") = last;
        let file = folder.path().join(format!("rejected/{last}.der"));
        std::fs::write(&file, &stranger).expect("written");
        firsts.push(Certificate::read(&stranger).expect("it can be read").thumbprint);
    }
    let mut heads: Vec<_> = firsts.iter().map(|thumbprint| &thumbprint[..1]).collect();
    heads.sort_unstable();
    let twice = heads.windows(2).find(|pair| pair[0] == pair[1]).expect("16 digits, 17 certificates")[0];

    for what in ["accept", "reject", "show"] {
        let (code, out, err) = trust(what, folder.path(), &[twice]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{what}");
        assert!(err.contains("several certificates") && err.contains(&format!("`{twice}`")), "{err}");
        let (code, _, err) = trust(what, folder.path(), &["0000000000000000"]);
        assert!(code == Some(2) && err.contains("no certificate has a thumbprint that begins with"), "{err}");
        let (code, _, err) = trust(what, folder.path(), &["server"]);
        assert!(code == Some(2) && err.contains("hexadecimal"), "{err}");
    }
    assert_eq!(pki.list().expect("readable").len(), 17, "nothing was moved");

    // As other tools print it.
    let spelt: Vec<_> =
        firsts[0].as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
    let (code, out, _) = trust("accept", folder.path(), &[&spelt.join(":")]);
    assert!(code == Some(0) && out.contains(&firsts[0]), "{out}");
    let trusted: Vec<_> =
        pki.list().expect("readable").into_iter().filter(|held| held.shelf.word() == "trusted").collect();
    assert_eq!(trusted.len(), 1);
    assert_eq!(trusted[0].certificate.thumbprint, firsts[0]);
    let (code, ..) = trust("accept", folder.path(), &[&firsts[0]]);
    assert_eq!(code, Some(0), "a second time does no harm");
}

#[test]
fn a_certificate_can_be_made_ahead_of_time_and_a_folder_that_cannot_be_is_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("pki");
    let (code, out, err) = trust("renew", &place, &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("own/cert.der"), "{out}");
    let (code, shown, _) = trust("show", &place, &[]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("own") && shown.contains("O=gemba") && shown.contains("urn:"), "{shown}");

    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("written");
    let (code, _, err) = trust("renew", &file, &[]);
    assert!(code == Some(1) && err.contains(file.to_str().expect("UTF-8")), "{err}");
    let (code, _, err) = gemba(&["trust", "list"]);
    assert!(code == Some(2) && err.contains("--pki"), "{err}");
    let (code, _, err) = gemba(&["trust", "list", "--config", file.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(2), "{err}");
}
