//! DSSE, Dead Simple Signing Envelopes (version 1.0.2).

use base64::DecodeError;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};

use crate::keys::{PublicKey, SigningKey};

/// What in-toto statements are.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A signed payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64.
    pub payload: String,
    /// What the payload is.
    pub payload_type: String,
    /// Whose word it is.
    pub signatures: Vec<Signature>,
}

/// A signature of an envelope's type and payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// A hint at the key; it is not signed.
    #[serde(default)]
    pub keyid: String,
    /// Base64.
    pub sig: String,
}

/// Why an envelope is not what it seems.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It was made by nobody who is trusted, or changed since.
    #[error("no signature of the key {key} is valid: it was signed by another, or changed since")]
    Forged {
        /// The trusted key's name.
        key: String,
    },
    /// It holds something else.
    #[error("it holds `{found}`, not `{PAYLOAD_TYPE}`")]
    PayloadType {
        /// What it says that it holds.
        found: String,
    },
    /// It is no base64.
    #[error("its payload is no base64: {detail}")]
    Encoding {
        /// What is wrong.
        detail: String,
    },
}

impl Envelope {
    /// Signs an in-toto statement.
    #[must_use]
    pub fn sign(payload: &[u8], key: &SigningKey) -> Self {
        let signature = key.sign(&pre_authentication_encoding(PAYLOAD_TYPE, payload));
        Self {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature {
                keyid: key.public().id(),
                sig: STANDARD.encode(signature),
            }],
        }
    }

    /// The payload, which the key's owner has signed.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn open(&self, key: &PublicKey) -> Result<Vec<u8>, EnvelopeError> {
        let payload = decoded(&self.payload);
        let payload = payload.map_err(|error| EnvelopeError::Encoding {
            detail: error.to_string(),
        })?;
        let message = pre_authentication_encoding(&self.payload_type, &payload);
        let is_valid = |signature: &Signature| {
            let bytes = decoded(&signature.sig);
            bytes.is_ok_and(|bytes| key.verifies(&message, &bytes))
        };
        if !self.signatures.iter().any(is_valid) {
            return Err(EnvelopeError::Forged { key: key.id() });
        }
        match self.payload_type == PAYLOAD_TYPE {
            true => Ok(payload),
            false => Err(EnvelopeError::PayloadType {
                found: self.payload_type.clone(),
            }),
        }
    }
}

/// Either alphabet is good, as the protocol says; what is written here is the standard one.
fn decoded(text: &str) -> Result<Vec<u8>, DecodeError> {
    match text.contains(['-', '_']) {
        true => URL_SAFE.decode(text),
        false => STANDARD.decode(text),
    }
}

/// What is signed: type and payload with their lengths, so that neither can pass for part of the other.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // DSSE's protocol.md, "Test Vectors".
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        let wanted = "DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(String::from_utf8_lossy(&encoded), wanted);
    }

    #[test]
    fn either_alphabet_of_base64_is_opened() {
        let key = SigningKey::generate().expect("random numbers");
        // Its base64 has both characters in which the alphabets differ.
        let payload = [0xfb, 0xff, 0xbf];
        let mut envelope = Envelope::sign(&payload, &key);
        assert_eq!(envelope.payload, "+/+/");
        let other = |text: &str| text.replace('+', "-").replace('/', "_");
        envelope.payload = other(&envelope.payload);
        envelope.signatures[0].sig = other(&envelope.signatures[0].sig);
        assert_eq!(envelope.open(&key.public()), Ok(payload.to_vec()));
        envelope.payload = "+/-_".to_owned();
        let mixed = envelope.open(&key.public());
        assert!(
            matches!(mixed, Err(EnvelopeError::Encoding { .. })),
            "{mixed:?}"
        );
    }

    #[test]
    fn only_what_was_signed_is_opened() {
        let key = SigningKey::generate().expect("random numbers");
        let other = SigningKey::generate().expect("random numbers");
        let envelope = Envelope::sign(b"statement", &key);
        assert_eq!(envelope.open(&key.public()), Ok(b"statement".to_vec()));
        let forged = |envelope: &Envelope, key: &SigningKey| {
            let opened = envelope.open(&key.public());
            assert!(
                matches!(opened, Err(EnvelopeError::Forged { .. })),
                "{opened:?}"
            );
        };
        forged(&envelope, &other);
        let mut edited = envelope.clone();
        edited.payload = STANDARD.encode(b"Statement");
        forged(&edited, &key);
        let mut retyped = envelope.clone();
        retyped.payload_type = "text/plain".to_owned();
        forged(&retyped, &key);
        let mut unsigned = envelope.clone();
        unsigned.signatures.clear();
        forged(&unsigned, &key);
        // One good signature among others is enough, and another's key id is of no use.
        let mut both = Envelope::sign(b"statement", &other);
        both.signatures.extend(envelope.signatures);
        both.signatures[0].keyid = key.public().id();
        assert!(both.open(&key.public()).is_ok());
    }
}
