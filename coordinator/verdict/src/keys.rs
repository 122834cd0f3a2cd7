//! Ed25519 keys, in PEM as other tools write and read them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regatta_model::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// What comes before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// How long a line of PEM is.
const PEM_WIDTH: usize = 64;

/// Text that is no key. Use a file that `regatta keys` has written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no Ed25519 {kind} in PEM: {detail}")]
pub struct InvalidKeyError {
    kind: &'static str,
    detail: String,
}

/// The system has no random numbers to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NewKeyError;

/// What signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pem: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey of {}", self.public().id())
    }
}

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// [`NewKeyError`].
    pub fn generate() -> Result<Self, NewKeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let document = document.map_err(|_| NewKeyError)?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| NewKeyError)?;
        let pem = to_pem(PRIVATE, document.as_ref());
        Ok(Self { pair, pem })
    }

    /// Reads what [`SigningKey::to_pem`] has written, or another tool: PKCS #8, with the public key or
    /// without.
    ///
    /// # Errors
    /// [`InvalidKeyError`].
    pub fn from_pem(text: &str) -> Result<Self, InvalidKeyError> {
        let document = of_pem(PRIVATE, text)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document);
        let pair = pair.map_err(|error| InvalidKeyError {
            kind: PRIVATE,
            detail: error.to_string(),
        })?;
        Ok(Self {
            pair,
            pem: text.to_owned(),
        })
    }

    /// Another secret, for `purpose` alone: the same whenever it is asked for, and of no use to whoever would sign.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        *Digest::of(format!("{purpose}\0{}", self.pem).as_bytes()).hash()
    }

    /// The key as a file holds it. It is a secret.
    #[must_use]
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// What verifies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads a `PUBLIC KEY` in PEM.
    ///
    /// # Errors
    /// [`InvalidKeyError`].
    pub fn from_pem(text: &str) -> Result<Self, InvalidKeyError> {
        let document = of_pem(PUBLIC, text)?;
        let key = document.strip_prefix(&SPKI_PREFIX);
        let key = key.and_then(|key| key.try_into().ok());
        key.map(Self).ok_or_else(|| InvalidKeyError {
            kind: PUBLIC,
            detail: "it is a key of another kind".to_owned(),
        })
    }

    /// The key as a file holds it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        to_pem(PUBLIC, &self.document())
    }

    /// A name for the key: the SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn id(&self) -> String {
        Digest::of(&self.document()).hash_hex()
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }

    fn document(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0].concat()
    }
}

fn to_pem(kind: &str, document: &[u8]) -> String {
    let text = STANDARD.encode(document);
    let mut pem = format!("-----BEGIN {kind}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_WIDTH));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str(&format!("-----END {kind}-----\n"));
    pem
}

fn of_pem(kind: &'static str, text: &str) -> Result<Vec<u8>, InvalidKeyError> {
    let invalid = |detail: String| InvalidKeyError { kind, detail };
    let begin = format!("-----BEGIN {kind}-----");
    let end = format!("-----END {kind}-----");
    let body = text.split_once(&begin).map(|(_, rest)| rest);
    let body = body.and_then(|rest| Some(rest.split_once(&end)?.0));
    let body = body.ok_or_else(|| invalid(format!("it has no `{begin}` with its end")))?;
    let body: String = body.split_whitespace().collect();
    STANDARD
        .decode(body)
        .map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_being_written() {
        let key = SigningKey::generate().expect("random numbers");
        let read = SigningKey::from_pem(key.to_pem()).expect("is a key");
        assert_eq!(read.public(), key.public());
        let public = PublicKey::from_pem(&key.public().to_pem()).expect("is a key");
        assert!(public.verifies(b"message", &read.sign(b"message")));
        assert!(!public.verifies(b"massage", &read.sign(b"message")));
        let other = SigningKey::generate().expect("random numbers");
        assert!(!public.verifies(b"message", &other.sign(b"message")));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn keys_of_other_tools_are_read() {
        // RFC 8410, section 10.3, and the public key in section 10.1.
        let key = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
                      MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                      -----END PUBLIC KEY-----\n";
        let key = SigningKey::from_pem(key).expect("is a key");
        assert_eq!(key.public().to_pem(), public);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let key = SigningKey::generate().expect("random numbers");
        for text in [
            "",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            key.to_pem(),
        ] {
            assert!(PublicKey::from_pem(text).is_err(), "{text}");
            assert!(
                SigningKey::from_pem(&text.replace("PUBLIC", "PRIVATE").replace("MF", "MG"))
                    .is_err(),
                "{text}"
            );
        }
    }
}
