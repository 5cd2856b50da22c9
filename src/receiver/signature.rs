//! Who sent it: the provider's signature over timestamp and token.
//!
//! Owns: both signature families (HMAC-SHA256 and the older MD5 layouts), and the only way from
//! an [`Unverified`] body to a [`Verified`] one.
//!
//! Never here: a comparison whose time depends on the digest, a `Verified` that no key stands
//! behind, a way to the bytes of an `Unverified` body. The *body* is not signed: a `Verified` says
//! that the provider made this timestamp and token, no more.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::notification::{self, BadBody};
use crate::secrets::{Fingerprint, Secret};
use crate::settings::SignatureScheme;

/// The two families, told apart by the length of the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// 32 bytes: HMAC-SHA256 over timestamp and token.
    HmacSha256,
    /// 16 bytes: one of the layouts of [`Layout`].
    Md5,
}

/// A decoded `signature.sum`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// From 64 hex digits.
    Sha256([u8; 32]),
    /// From 32 hex digits.
    Md5([u8; 16]),
}

impl Sum {
    /// From hex digits of either case; `None` when they are not 32 or 64 of them.
    pub fn from_hex(text: &str) -> Option<Self> {
        match text.len() {
            64 => {
                let mut digest = [0; 32];
                hex::decode_to_slice(text, &mut digest).ok()?;
                Some(Self::Sha256(digest))
            }
            32 => {
                let mut digest = [0; 16];
                hex::decode_to_slice(text, &mut digest).ok()?;
                Some(Self::Md5(digest))
            }
            _ => None,
        }
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(digest) => digest,
            Self::Md5(digest) => digest,
        }
    }

    /// Which family made it.
    pub const fn family(&self) -> Family {
        match self {
            Self::Sha256(_) => Family::HmacSha256,
            Self::Md5(_) => Family::Md5,
        }
    }
}

/// The orders in which the older MD5 signature may join its parts (provider reference §4.3; the
/// provider's pages do not say which). `k` key, `t` timestamp, `n` token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `md5(k t n)`
    A,
    /// `md5(t n k)`
    B,
    /// `md5(k n t)`
    C,
    /// `md5(n t k)`
    D,
    /// `md5(k ":" t ":" n)`
    E,
    /// `md5(k "." t "." n)`
    F,
    /// `HMAC-MD5(k, t n)`
    G,
}

impl Layout {
    /// All of them, most likely first.
    pub const ALL: [Self; 7] = [
        Self::A,
        Self::B,
        Self::C,
        Self::D,
        Self::E,
        Self::F,
        Self::G,
    ];
}

/// A rule's signing key, ready for use: the key schedule is computed once.
#[derive(Clone)]
pub struct SigningKey {
    secret: Secret,
    fingerprint: Fingerprint,
    hmac_sha256: Hmac<Sha256>,
    hmac_md5: Hmac<Md5>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.fingerprint)
    }
}

impl SigningKey {
    /// From the text of a rule's `securityKey`, taken as bytes: it is neither hex nor base64.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn new(secret: Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        let any_length = "an HMAC key may have any length";
        Self {
            hmac_sha256: Hmac::new_from_slice(bytes).expect(any_length),
            hmac_md5: Hmac::new_from_slice(bytes).expect(any_length),
            fingerprint: secret.fingerprint(),
            secret,
        }
    }

    /// What may be shown of it.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The key itself.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    fn sha256_fits(&self, digest: &[u8; 32], timestamp: &[u8], token: &[u8]) -> bool {
        let mut mac = self.hmac_sha256.clone();
        mac.update(timestamp);
        mac.update(token);
        mac.finalize().into_bytes().as_slice().ct_eq(digest).into()
    }

    fn md5_fits(&self, layout: Layout, digest: &[u8; 16], timestamp: &[u8], token: &[u8]) -> bool {
        let key = self.secret.expose().as_bytes();
        let joined = |parts: &[&[u8]]| {
            let mut md5 = Md5::new();
            for part in parts {
                md5.update(part);
            }
            md5.finalize()
        };
        let computed = match layout {
            Layout::A => joined(&[key, timestamp, token]),
            Layout::B => joined(&[timestamp, token, key]),
            Layout::C => joined(&[key, token, timestamp]),
            Layout::D => joined(&[token, timestamp, key]),
            Layout::E => joined(&[key, b":", timestamp, b":", token]),
            Layout::F => joined(&[key, b".", timestamp, b".", token]),
            Layout::G => {
                let mut mac = self.hmac_md5.clone();
                mac.update(timestamp);
                mac.update(token);
                mac.finalize().into_bytes()
            }
        };
        computed.as_slice().ct_eq(digest).into()
    }
}

/// A body with a well-formed signature that nobody has checked yet. Gives out nothing.
pub struct Unverified {
    body: Bytes,
    sum: Sum,
    timestamp: i64,
    token: String,
}

impl Unverified {
    /// Finds the `signature` object in a raw body.
    ///
    /// # Errors
    /// Which field is wrong and what was expected, without content.
    pub fn parse(body: Bytes) -> Result<Self, BadBody> {
        let signature = notification::signature_object(&body)?;
        Ok(Self {
            body,
            sum: signature.sum,
            timestamp: signature.timestamp,
            token: signature.token,
        })
    }

    /// Which family the signature claims to be of.
    pub const fn family(&self) -> Family {
        self.sum.family()
    }

    /// Checks the signature under one key. The only way to a [`Verified`].
    ///
    /// # Errors
    /// Gives itself back when the key does not fit or the scheme forbids the family.
    pub fn verify(
        self,
        key: &SigningKey,
        scheme: SignatureScheme,
        layouts: &LayoutMemory,
    ) -> Result<Verified, Self> {
        let mut digits = [0_u8; 20];
        let timestamp = decimal(self.timestamp, &mut digits);
        let token = self.token.as_bytes();
        let fits = match (&self.sum, scheme) {
            (Sum::Sha256(digest), SignatureScheme::Auto | SignatureScheme::HmacSha256) => {
                key.sha256_fits(digest, timestamp, token)
            }
            (Sum::Md5(digest), SignatureScheme::Auto | SignatureScheme::Md5) => {
                layouts.try_each(|layout| key.md5_fits(layout, digest, timestamp, token))
            }
            _ => false,
        };
        if fits {
            Ok(Verified {
                body: self.body,
                sum: self.sum,
                timestamp: self.timestamp,
            })
        } else {
            Err(self)
        }
    }
}

/// A body whose signature a key of ours stands behind.
pub struct Verified {
    body: Bytes,
    sum: Sum,
    timestamp: i64,
}

impl Verified {
    /// The raw body, as sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The verified digest.
    pub fn sum(&self) -> &Sum {
        &self.sum
    }

    /// `signature.timestamp`, Unix seconds.
    pub const fn timestamp(&self) -> i64 {
        self.timestamp
    }
}

/// The MD5 layout that a rule's signatures were last seen in: tried first the next time.
#[derive(Debug, Default)]
pub struct LayoutMemory(AtomicU8);

impl LayoutMemory {
    /// The layout that verified last; A before any did.
    pub fn remembered(&self) -> Layout {
        Layout::ALL[usize::from(self.0.load(Ordering::Relaxed)) % Layout::ALL.len()]
    }

    fn try_each(&self, fits: impl Fn(Layout) -> bool) -> bool {
        let first = self.remembered();
        if fits(first) {
            return true;
        }
        for (index, layout) in Layout::ALL.into_iter().enumerate() {
            if layout != first && fits(layout) {
                self.0.store(index as u8, Ordering::Relaxed);
                return true;
            }
        }
        false
    }
}

/// The plain decimal text of a timestamp, without an allocation.
fn decimal(number: i64, buffer: &mut [u8; 20]) -> &[u8] {
    use std::io::Write;
    let mut rest = &mut buffer[..];
    write!(rest, "{number}").expect("an i64 has at most 20 characters");
    let unused = rest.len();
    &buffer[..20 - unused]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "demo-security-key-0001";
    const TIMESTAMP: i64 = 1_735_689_600;
    const TOKEN: &str = "0f3c2b7e9a514d6c";

    fn verify(key: &str, timestamp: i64, token: &str, sum: &str, scheme: SignatureScheme) -> bool {
        let unverified = Unverified {
            body: Bytes::new(),
            sum: Sum::from_hex(sum).expect("hex"),
            timestamp,
            token: token.to_owned(),
        };
        unverified
            .verify(
                &SigningKey::new(Secret::new(key)),
                scheme,
                &LayoutMemory::default(),
            )
            .is_ok()
    }

    /// Vectors of the provider reference §4.4.
    #[test]
    fn hmac_vectors() {
        for (key, timestamp, token, sum) in [
            (
                KEY,
                TIMESTAMP,
                TOKEN,
                "67b1f7eb22debe0c1dd6619ab2c02920532e47284b63332b29918d73be87bf03",
            ),
            (
                "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
                1_767_225_599,
                "5c7e1a90-4d2b-4f11-8e0c-6a2f3b9d7c55",
                "ab7ef46e6ce86adbce9734f8c6fb85604c392effd603e2a7f1b49bfdfaf0d7e6",
            ),
            (
                "k",
                0,
                "",
                "b44d10ba62abf73965e6b4baf77752ad92b11163e84e0e7f576105023c361523",
            ),
            (
                "clé-ünïcode",
                1_700_000_000,
                "tökén",
                "bad1b159b5459e992154ea39a8226d48490476cbaf692ee45bc86d8bce465315",
            ),
        ] {
            for sum in [sum.to_owned(), sum.to_uppercase()] {
                for scheme in [SignatureScheme::Auto, SignatureScheme::HmacSha256] {
                    assert!(verify(key, timestamp, token, &sum, scheme), "{key} {sum}");
                }
                assert!(!verify(key, timestamp, token, &sum, SignatureScheme::Md5));
                assert!(!verify(
                    "other",
                    timestamp,
                    token,
                    &sum,
                    SignatureScheme::Auto
                ));
                assert!(!verify(
                    key,
                    timestamp + 1,
                    token,
                    &sum,
                    SignatureScheme::Auto
                ));
            }
        }
    }

    /// Token first, `.` between, milliseconds.
    #[test]
    fn hmac_negative_vectors() {
        for sum in [
            "75f1d1badac94c5debebc83bbffdeabe9cdde343b583181dd6df70fb83423ab3",
            "917c8e4104aca7a29a5f58b18f8c690660cc5c77db9c8c2f2f14734d66d88b42",
            "ce1927e9fbc9433f553e1a366f3dd1b80b399be6776526df701f93a520742b3e",
        ] {
            assert!(!verify(KEY, TIMESTAMP, TOKEN, sum, SignatureScheme::Auto));
        }
    }

    #[test]
    fn md5_vectors_of_every_layout() {
        for (layout, sum) in [
            (Layout::A, "a594fda411925f7768aaadc5fe80e198"),
            (Layout::B, "c995c82029db7834cf4175d655c68c17"),
            (Layout::C, "80b2dbb5a9cffb03ef30a1b4de898403"),
            (Layout::D, "1b6ffbc0be3932efb27b27e0b260aef4"),
            (Layout::E, "c2a01c5e8a0fb042b07c5871e6c298e6"),
            (Layout::F, "f468b95e927b26b45f46a575c70aab5c"),
            (Layout::G, "f2e2fb29d098b6cca4cedfae51d0c4fd"),
        ] {
            for scheme in [SignatureScheme::Auto, SignatureScheme::Md5] {
                assert!(
                    verify(KEY, TIMESTAMP, TOKEN, sum, scheme),
                    "layout {layout:?}"
                );
            }
            let pinned = SignatureScheme::HmacSha256;
            assert!(!verify(KEY, TIMESTAMP, TOKEN, sum, pinned));
            assert!(!verify(
                "other",
                TIMESTAMP,
                TOKEN,
                sum,
                SignatureScheme::Auto
            ));

            let memory = LayoutMemory::default();
            let unverified = Unverified {
                body: Bytes::new(),
                sum: Sum::from_hex(sum).expect("hex"),
                timestamp: TIMESTAMP,
                token: TOKEN.to_owned(),
            };
            let key = SigningKey::new(Secret::new(KEY));
            assert!(
                unverified
                    .verify(&key, SignatureScheme::Auto, &memory)
                    .is_ok()
            );
            assert_eq!(memory.remembered(), layout);
        }
    }

    #[test]
    fn digits_of_every_kind_of_timestamp() {
        for number in [0, -1, 1_735_689_600, i64::MIN, i64::MAX] {
            let mut buffer = [0; 20];
            assert_eq!(decimal(number, &mut buffer), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_key_shows_its_fingerprint_only() {
        let shown = format!("{:?}", SigningKey::new(Secret::new(KEY)));
        assert!(!shown.contains("demo-security"), "{shown}");
    }
}
