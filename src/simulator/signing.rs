//! The provider's side of signatures: how a `sum` is made.
//!
//! Owns: HMAC-SHA256 as documented, and the seven layouts that the documented but unexplained
//! "md5sum using the SecurityKey" may have. Never here: checking a signature.

use aws_lc_rs::hmac;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// How the simulated provider signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// `hex(HMAC-SHA256(key, timestamp + token))`, as documented.
    #[default]
    HmacSha256,
    /// `md5(key + timestamp + token)`.
    Md5A,
    /// `md5(timestamp + token + key)`.
    Md5B,
    /// `md5(key + token + timestamp)`.
    Md5C,
    /// `md5(token + timestamp + key)`.
    Md5D,
    /// Layout A with `:` between the parts.
    Md5E,
    /// Layout A with `.` between the parts.
    Md5F,
    /// `HMAC-MD5(key, timestamp + token)`.
    Md5G,
}

impl Scheme {
    /// All of them, the default first.
    pub const ALL: [Self; 8] = [
        Self::HmacSha256,
        Self::Md5A,
        Self::Md5B,
        Self::Md5C,
        Self::Md5D,
        Self::Md5E,
        Self::Md5F,
        Self::Md5G,
    ];
}

/// The `sum` of a signature, lower-case hexadecimal. `timestamp` is in Unix seconds.
pub fn sum(scheme: Scheme, key: &str, timestamp: i64, token: &str) -> String {
    let time = timestamp.to_string();
    match scheme {
        Scheme::HmacSha256 => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
            hex::encode(hmac::sign(&key, format!("{time}{token}").as_bytes()))
        }
        Scheme::Md5A => md5(&[key, &time, token]),
        Scheme::Md5B => md5(&[&time, token, key]),
        Scheme::Md5C => md5(&[key, token, &time]),
        Scheme::Md5D => md5(&[token, &time, key]),
        Scheme::Md5E => md5(&[key, ":", &time, ":", token]),
        Scheme::Md5F => md5(&[key, ".", &time, ".", token]),
        Scheme::Md5G => hex::encode(hmac_md5(
            key.as_bytes(),
            format!("{time}{token}").as_bytes(),
        )),
    }
}

fn md5(parts: &[&str]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part.as_bytes());
    }
    hex::encode(digest.finalize())
}

/// RFC 2104 by hand: the crate that does it is the verifier's.
fn hmac_md5(key: &[u8], message: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64;
    let mut block = [0_u8; BLOCK];
    if key.len() > BLOCK {
        let digest = Md5::digest(key);
        block[..digest.len()].copy_from_slice(&digest);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |byte: u8| block.map(|b| b ^ byte);
    let inner = Md5::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Md5::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}
