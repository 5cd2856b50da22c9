//! A bearer token that is kept in a file.
//!
//! Owns: the token, read again when its file changes; compared in constant time. A file that
//! became unreadable or empty leaves the last good token in force.
//!
//! Never here: an empty token that would let everybody in.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Ticks};
use crate::files::Stamp;
use crate::secrets::Secret;

/// The file is looked at again at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token file {file}: {reason}; write a token of at least 16 characters there")]
pub struct TokenError {
    /// Which file.
    pub file: String,
    /// What is wrong. Never its content.
    pub reason: String,
}

/// See the module.
pub struct TokenFile {
    clock: Arc<dyn Clock>,
    path: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    token: Secret,
    stamp: Stamp,
    looked: Ticks,
}

impl TokenFile {
    /// The token in this file.
    ///
    /// # Errors
    /// What is wrong with it, and what to write there.
    pub fn open(path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, TokenError> {
        let current = Current {
            stamp: Stamp::of_file(&path),
            token: read(&path)?,
            looked: clock.ticks(),
        };
        Ok(Self {
            clock,
            path,
            current: Mutex::new(current),
        })
    }

    /// The token in force.
    pub fn token(&self) -> Secret {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.ticks();
        if now.since(current.looked) >= LOOK_AGAIN {
            current.looked = now;
            let stamp = Stamp::of_file(&self.path);
            if stamp != current.stamp {
                match read(&self.path) {
                    Ok(token) => current.token = token,
                    Err(error) => tracing::warn!(%error, "the old token stays in force"),
                }
                current.stamp = stamp;
            }
        }
        current.token.clone()
    }
}

/// What follows `Bearer` in the value of a header `Authorization`; `None` for another scheme.
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let scheme = authorization.get(..7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| authorization[7..].trim_ascii())
}

/// Whether a process could be started with the token in this file.
///
/// # Errors
/// What is wrong with it, and what to write there.
pub fn check_token_file(path: &Path) -> Result<(), TokenError> {
    read(path).map(drop)
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let wrong = |reason: String| TokenError {
        file: path.display().to_string(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    if !usable(token) {
        return Err(wrong(
            "holds no token (at least 16 visible ASCII characters)".to_owned(),
        ));
    }
    Ok(Secret::new(token))
}

/// Whether a text can be a token: at least 16 visible ASCII characters.
pub fn usable(token: &str) -> bool {
    token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic())
}
