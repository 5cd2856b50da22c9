//! The feed's bearer token.
//!
//! Owns: the token, read again when its file changes. Compared in constant time. A file that
//! became unreadable or empty leaves the last good token in force.
//!
//! Never here: an empty token that would let everybody in.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};

use super::super::reload::Stamp;
use super::problem::Problem;
use crate::clock::{Clock, Ticks};
use crate::secrets::{Fingerprint, Secret};

/// The file is looked at again at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the feed's token file {file}: {reason}; write a token of at least 16 characters there")]
pub struct TokenError {
    /// Which file.
    pub file: String,
    /// What is wrong. Never its content.
    pub reason: String,
}

pub(super) struct Auth {
    clock: Arc<dyn Clock>,
    file: Option<PathBuf>,
    current: Mutex<Option<Current>>,
}

struct Current {
    token: Secret,
    stamp: Stamp,
    looked: Ticks,
}

impl Auth {
    pub(super) fn new(file: Option<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, TokenError> {
        let current = match &file {
            Some(path) => Some(Current {
                stamp: Stamp::of_file(path),
                token: read(path)?,
                looked: clock.ticks(),
            }),
            None => None,
        };
        Ok(Self {
            clock,
            file,
            current: Mutex::new(current),
        })
    }

    /// The token in force; `None` when none is asked for.
    fn token(&self) -> Option<Secret> {
        let path = self.file.as_ref()?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_mut()?;
        let now = self.clock.ticks();
        if now.since(current.looked) >= LOOK_AGAIN {
            current.looked = now;
            let stamp = Stamp::of_file(path);
            if stamp != current.stamp {
                match read(path) {
                    Ok(token) => current.token = token,
                    Err(error) => tracing::warn!(%error, "the old token stays in force"),
                }
                current.stamp = stamp;
            }
        }
        Some(current.token.clone())
    }

    /// Lets a request in. Gives what it was let in with, to be asked again by [`Self::holds`].
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<Option<Fingerprint>, Problem> {
        let Some(token) = self.token() else {
            return Ok(None);
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.ok_or_else(|| Problem::unauthorized(false))?;
        let bearer = given
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
        if bearer && token.matches(given[7..].trim_ascii()) {
            Ok(Some(token.fingerprint()))
        } else {
            Err(Problem::unauthorized(true))
        }
    }

    /// Whether what a stream was let in with is still the token.
    pub(super) fn holds(&self, with: Option<&Fingerprint>) -> bool {
        self.token().map(|token| token.fingerprint()).as_ref() == with
    }
}

/// Whether a feed could be started with the token in this file.
///
/// # Errors
/// What is wrong with it, and what to write there.
pub fn check_token_file(path: &std::path::Path) -> Result<(), TokenError> {
    read(path).map(drop)
}

fn read(path: &std::path::Path) -> Result<Secret, TokenError> {
    let wrong = |reason: String| TokenError {
        file: path.display().to_string(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(
            "holds no token (at least 16 visible ASCII characters)".to_owned(),
        ));
    }
    Ok(Secret::new(token))
}
