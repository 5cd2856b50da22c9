//! Rule keys without a cluster: a folder with one file per type, as the receiver reads them.
//!
//! Owns: writing that folder, and the file `account` beside it, with the fingerprint of the API key
//! that the rules were made with. A key is on disk (synced, mode 0600) before the rule that signs with
//! it is enabled, so that a restart can verify while the registry is down. Never here: a key in a
//! message; a file that others may read.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::api::NotificationType;
use crate::clock::Clock;
use crate::receiver::keys::KeyRing;
use crate::registration::{ChannelNote, Gate, KeyStore, StoreError};
use crate::secrets::{Fingerprint, Secret};

/// The folder of rule keys within the data folder.
pub const KEYS: &str = "keys";

/// The file beside it.
const ACCOUNT: &str = "account";

/// Makes a folder (and those above it) that only its owner can enter.
pub fn private_folder(folder: &Path) -> Result<(), String> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| {
            format!(
                "cannot make the folder {}: {error}; choose another --data-dir",
                folder.display()
            )
        })
}

/// Replaces a file that only its owner can read: whole or not at all, synced when it returns.
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Hidden: whoever reads all files of the folder must not take it for one of them.
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(".new");
    let temporary = folder.join(hidden);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// The folder of rule keys of `bellhop run`, and the ring that verifies with them.
pub struct KeyFolder {
    folder: PathBuf,
    account: PathBuf,
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
}

impl KeyFolder {
    /// The folder `keys` of a data folder, which is made if it is not there.
    pub fn new(data: &Path, ring: Arc<KeyRing>, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let folder = data.join(KEYS);
        private_folder(&folder)?;
        Ok(Self {
            folder,
            account: data.join(ACCOUNT),
            ring,
            clock,
        })
    }

    fn file(&self, kind: NotificationType) -> PathBuf {
        self.folder.join(kind.segment())
    }

    fn problem(&self, kind: NotificationType, what: &str, error: &std::io::Error) -> StoreError {
        StoreError(format!(
            "cannot {what} the key file {}: {error}; make room or rights for it",
            self.file(kind).display()
        ))
    }

    fn read(&self, kind: NotificationType) -> Result<Option<Secret>, StoreError> {
        match fs::read_to_string(self.file(kind)) {
            Ok(text) => Ok(text.lines().next().map(|line| Secret::new(line.trim()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.problem(kind, "read", &error)),
        }
    }
}

#[async_trait]
impl KeyStore for KeyFolder {
    async fn store(&self, kind: NotificationType, key: &Secret) -> Result<(), StoreError> {
        write_private(&self.file(kind), format!("{}\n", key.expose()).as_bytes())
            .map_err(|error| self.problem(kind, "write", &error))?;
        self.ring.set(kind, vec![key.clone()]);
        Ok(())
    }

    async fn known(&self, kind: NotificationType) -> Result<Option<Fingerprint>, StoreError> {
        Ok(self.read(kind)?.map(|key| key.fingerprint()))
    }

    async fn forget(&self, kind: NotificationType) -> Result<(), StoreError> {
        match fs::remove_file(self.file(kind)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.problem(kind, "remove", &error)),
        }
        self.ring.clear(kind);
        Ok(())
    }
}

/// A file that holds no fingerprint tells nothing: it is written anew.
#[async_trait]
impl ChannelNote for KeyFolder {
    async fn noted(&self) -> Result<Option<Fingerprint>, StoreError> {
        match fs::read_to_string(&self.account) {
            Ok(text) => Ok(Fingerprint::parse(text.trim())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError(format!(
                "cannot read {}: {error}; make it readable",
                self.account.display()
            ))),
        }
    }

    async fn note(&self, key: &Fingerprint) -> Result<(), StoreError> {
        write_private(&self.account, format!("{key}\n").as_bytes()).map_err(|error| {
            StoreError(format!(
                "cannot write {}: {error}; make room or rights for it",
                self.account.display()
            ))
        })
    }
}

#[async_trait]
impl Gate for KeyFolder {
    async fn loaded(&self, kind: NotificationType, key: &Fingerprint) -> bool {
        while !self.ring.fingerprints(kind).contains(key) {
            self.clock.sleep(Duration::from_millis(20)).await;
        }
        true
    }

    fn waiting_for(&self) -> String {
        "the receiver of this process to load the key".to_owned()
    }
}
