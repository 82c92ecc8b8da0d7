//! The folder, without a server.

use std::sync::OnceLock;

use opcua::crypto::SecurityPolicy;

use super::*;

/// One certificate for all, of ours: making a key takes long.
fn made() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        Pki::at(folder.path()).ensure_own().expect("made")
    })
}

/// The same certificate with other last bytes: another thumbprint, and a signature that nobody looks at.
fn stranger(number: u16) -> Vec<u8> {
    let mut der = made().der().to_vec();
    let end = der.len() - 2;
    der[end..].copy_from_slice(&number.to_be_bytes());
    der
}

fn judged(pki: &Pki, der: &[u8]) -> Result<(), Doubt> {
    let application_uri = made().application_uri.as_deref().expect("ours has one");
    pki.judge(der, &Expected { policy: SecurityPolicy::Basic256Sha256, host: None, application_uri })
}

#[test]
fn strangers_do_not_fill_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::at(folder.path());
    for number in 0..130 {
        assert!(matches!(judged(&pki, &stranger(number)), Err(Doubt::Untrusted { .. })));
    }
    let held = pki.list().expect("readable");
    assert_eq!(held.len(), 100);
    let last = Certificate::read(&stranger(129)).expect("it can be read").thumbprint;
    assert!(held.iter().any(|held| held.certificate.thumbprint == last), "the newest stays");
}

#[test]
fn what_is_trusted_under_any_name_is_trusted_no_longer_once_it_is_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::at(folder.path());
    let der = stranger(7);
    assert!(judged(&pki, &der).is_err());
    std::fs::write(folder.path().join("trusted/by hand.crt"), &der).expect("written");
    judged(&pki, &der).expect("trusted");
    let thumbprint = Certificate::read(&der).expect("it can be read").thumbprint;
    pki.reject(&thumbprint).expect("there");
    assert!(matches!(judged(&pki, &der), Err(Doubt::Untrusted { .. })));
    assert_eq!(pki.list().expect("readable").len(), 1, "no copy is left among the trusted ones");
    // Other files may lie about.
    std::fs::write(folder.path().join("trusted/README"), "no certificate").expect("written");
    pki.accept(&thumbprint[..8]).expect("there");
    judged(&pki, &der).expect("trusted again");
}

#[test]
fn what_cannot_be_a_certificate_is_said_to_be_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::at(folder.path());
    let chain = [made().der(), made().der()].concat();
    for (shown, expected) in [
        (&[][..], "it is empty"),
        (b"hello", "no certificate in DER or PEM"),
        (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "no certificate in PEM"),
        (&chain, "more than one certificate: a chain"),
        (&made().der()[..100], "no certificate in DER or PEM"),
    ] {
        let said = judged(&pki, shown).expect_err("none").to_string();
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(pki.list().expect("readable").is_empty());
}

/// Why a server that sends a chain is refused. The library parses what comes with the channel, which is signed, and compares
/// what comes with the session: to cut the chain before it sees it is no way out. Once this fails, chains can be let in.
#[test]
fn the_library_takes_no_chain() {
    let shown = |der: &[u8]| opcua::crypto::X509::from_byte_string(&opcua::types::ByteString::from(der));
    shown(made().der()).expect("one");
    shown(&[made().der(), made().der()].concat()).expect_err("two");
}

#[test]
fn a_host_is_known_by_name_in_any_case_and_by_address_in_any_spelling() {
    let mut certificate = made().clone();
    certificate.hosts = ["PLC_1", "10.0.0.7", "fe80::1"].map(str::to_owned).to_vec();
    for host in ["plc_1", "10.0.0.7", "[fe80::1]", "fe80:0:0:0:0:0:0:1"] {
        assert!(certificate.names(host), "{host}");
    }
    for host in ["plc_2", "10.0.0.70", "", "fe80::2"] {
        assert!(!certificate.names(host), "{host}");
    }
}

#[test]
fn a_command_can_be_pasted_whatever_the_folder_is_called() {
    assert_eq!(Pki::at("/var/lib/gemba/pki").command("renew"), "gemba trust renew --pki /var/lib/gemba/pki");
    assert_eq!(Pki::at("/line 1/o'clock").command("renew"), r"gemba trust renew --pki '/line 1/o'\''clock'");
}
