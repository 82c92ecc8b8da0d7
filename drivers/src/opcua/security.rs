//! How a link is secured, and who it says it is.

use std::fmt;
use std::path::PathBuf;

use opcua::crypto::SecurityPolicy;
use opcua::types::MessageSecurityMode;

/// How the channel is secured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// Plain: anybody on the wire can read along, and answer in the server's place.
    #[default]
    None,
    /// Both sides prove who they are.
    Secured(Secured),
}

/// What a secured channel takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Secured {
    /// With which algorithms.
    pub policy: Policy,
    /// What of a message they cover.
    pub mode: Mode,
    /// Whether the server's certificate must name the host that we dial.
    ///
    /// A certificate is trusted by itself, one by one, so that nobody but the holder of its key can use it.
    /// The host name only tells two servers apart that are both trusted.
    pub verify_host: bool,
    /// The folder with our certificate and those that we trust: see [`Pki`](super::Pki).
    pub pki: PathBuf,
}

/// The security policies that are held to be secure (OPC 10000-7). Basic128Rsa15 and Basic256 are deprecated
/// since 1.04, for SHA-1, and are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// What most servers offer.
    Basic256Sha256,
    /// The lightest of the newer ones.
    Aes128Sha256RsaOaep,
    /// The strongest.
    Aes256Sha256RsaPss,
}

/// What is done to each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody can change it; anybody can read it.
    Sign,
    /// Nobody can change or read it.
    #[default]
    SignAndEncrypt,
}

/// Who we say we are.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A user with a password, which goes out encrypted.
    User {
        /// User name.
        name: String,
        /// Password. Never shown.
        password: String,
    },
    /// A user with a certificate; the key that belongs to it signs, and stays here.
    Certificate {
        /// PEM or DER.
        certificate: PathBuf,
        /// PEM or DER, PKCS#8 or PKCS#1, without a passphrase.
        key: PathBuf,
    },
}

impl Policy {
    /// For the library.
    pub(super) fn known_as(self) -> SecurityPolicy {
        match self {
            Self::Basic256Sha256 => SecurityPolicy::Basic256Sha256,
            Self::Aes128Sha256RsaOaep => SecurityPolicy::Aes128Sha256RsaOaep,
            Self::Aes256Sha256RsaPss => SecurityPolicy::Aes256Sha256RsaPss,
        }
    }

    /// As the configuration writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Basic256Sha256 => "basic256sha256",
            Self::Aes128Sha256RsaOaep => "aes128",
            Self::Aes256Sha256RsaPss => "aes256",
        }
    }

    /// Every one.
    pub const ALL: [Self; 3] = [Self::Basic256Sha256, Self::Aes128Sha256RsaOaep, Self::Aes256Sha256RsaPss];
}

impl Mode {
    /// For the library.
    pub(super) fn known_as(self) -> MessageSecurityMode {
        match self {
            Self::Sign => MessageSecurityMode::Sign,
            Self::SignAndEncrypt => MessageSecurityMode::SignAndEncrypt,
        }
    }

    /// As the configuration writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::SignAndEncrypt => "sign_and_encrypt",
        }
    }

    /// Every one.
    pub const ALL: [Self; 2] = [Self::Sign, Self::SignAndEncrypt];
}

impl fmt::Debug for Identity {
    /// Without names: they may have been filled in from a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::User { .. } => "User",
            Self::Certificate { .. } => "Certificate",
        })
    }
}
