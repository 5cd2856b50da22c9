//! `name=value` arguments between the bench and its own processes.
//!
//! Never here: a default; both ends are this program and must agree.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// What a role was started with.
pub struct Arguments(HashMap<String, String>);

impl Arguments {
    /// From the command line behind the role's name.
    pub fn parse(words: &[String]) -> Self {
        let pairs = words.iter().filter_map(|word| word.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// The value of `name`, if it was given.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| format!("`{name}={text}` cannot be understood"))
    }

    /// The value of `name`.
    pub fn need<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.get(name)?
            .ok_or_else(|| format!("`{name}=` is missing"))
    }
}

/// One argument.
pub fn argument(name: &str, value: impl Display) -> String {
    format!("{name}={value}")
}
