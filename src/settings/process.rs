//! The file that `bellhop receiver` reads: the settings, and where its process finds things.
//!
//! Owns: the file's shape, reading and writing it. Never here: a secret; a value that the process
//! could find out by itself.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Settings, millis};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverConfig {
    /// Where the process finds things.
    pub process: Process,
    /// What the subscription says, resolved.
    pub settings: Settings,
}

/// Where the process of a data plane finds things. Files and folders are mounted: they are read
/// again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// The path of the subscription's `url`.
    pub base_path: String,
    /// Folder for what must survive a restart.
    pub data_dir: PathBuf,
    /// Folder with a file of signing keys per type, newest key first, and the probe's.
    pub keys_dir: PathBuf,
    /// Folder with `apiKey` and `apiSecret`.
    pub credentials_dir: PathBuf,
    /// File with the number of resyncs that each type was asked for, as JSON; it may be missing.
    pub resyncs_file: PathBuf,
    /// File with the token of the admin port; `None`: none is asked for.
    pub admin_token_file: Option<PathBuf>,
    /// Folder with `tls.crt` and `tls.key` of the public port; `None`: plain HTTP.
    pub tls_dir: Option<PathBuf>,
    /// How long requests in flight may take at the end.
    #[serde(with = "millis")]
    pub drain: Duration,
    /// Whether provider URLs may be plain http on other hosts than this one.
    pub allow_plain_http: bool,
}

impl ReceiverConfig {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// The file's text, the same for the same content.
    #[allow(
        clippy::missing_panics_doc,
        reason = "names, numbers and texts can be written as YAML"
    )]
    pub fn text(&self) -> String {
        serde_saphyr::to_string(self).expect("settings can be written as YAML")
    }
}
