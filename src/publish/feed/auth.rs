//! Who may read the feed: everybody, or who has the token.
//!
//! Owns: the answer to a request without it. The token is in a file that may change
//! ([`crate::files::token`]).

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};

use super::problem::Problem;
use crate::clock::Clock;
use crate::files::token::{TokenError, TokenFile, bearer};
use crate::secrets::Fingerprint;

pub(super) struct Auth {
    file: Option<TokenFile>,
}

impl Auth {
    pub(super) fn new(file: Option<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, TokenError> {
        let file = file.map(|path| TokenFile::open(path, clock)).transpose()?;
        Ok(Self { file })
    }

    /// Lets a request in. Gives what it was let in with, to be asked again by [`Self::holds`].
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<Option<Fingerprint>, Problem> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let token = file.token();
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.ok_or_else(|| Problem::unauthorized(false))?;
        if bearer(given).is_some_and(|given| token.matches(given)) {
            Ok(Some(token.fingerprint()))
        } else {
            Err(Problem::unauthorized(true))
        }
    }

    /// Whether what a stream was let in with is still the token.
    pub(super) fn holds(&self, with: Option<&Fingerprint>) -> bool {
        let token = self.file.as_ref().map(TokenFile::token);
        token.map(|token| token.fingerprint()).as_ref() == with
    }
}
