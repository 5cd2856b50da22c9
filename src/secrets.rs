//! The redacting types that every secret lives in, and the fingerprints that may be shown instead.
//!
//! Owns: API credentials, rule keys, tokens. Never here: a `Debug`, `Display` or `Serialize` that
//! shows a secret (design rule: "only fingerprints"). [`secrecy`] wipes the memory on drop.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// What may be said of a secret in logs, status and metrics: 12 hex digits of its SHA-256.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of any secret bytes.
    pub fn of(secret: &[u8]) -> Self {
        Self(hex::encode(&Sha256::digest(secret)[..6]))
    }

    /// A fingerprint that was written down. `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 12 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The 12 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret text: an API key or secret, a rule's `securityKey`, a bearer token.
/// Its `Debug` is its fingerprint; the text itself comes out of [`Secret::expose`] only.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes ownership of the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text. Every call is a place where a secret could leak: keep them few.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What may be shown instead.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.expose().as_bytes())
    }

    /// Compares in time that depends only on the lengths.
    pub fn matches(&self, other: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.expose().as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}

impl Eq for Secret {}

/// The provider's API credentials (headers `X-API-Key` and `X-API-Secret`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `apiKey` of the referenced Secret.
    pub api_key: Secret,
    /// `apiSecret` of the referenced Secret.
    pub api_secret: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_display_show_a_fingerprint_only() {
        let credentials = Credentials {
            api_key: Secret::new("the-api-key"),
            api_secret: Secret::new("the-api-secret"),
        };
        let shown = format!("{credentials:?} {}", credentials.api_key.fingerprint());
        assert!(!shown.contains("the-api"), "{shown}");
        // Oracle: `printf the-api-key | sha256sum | cut -c1-12`.
        assert!(shown.contains("8d50189b762a"), "{shown}");
    }
}
