//! Where the API credentials come from, and noticing that they changed.
//!
//! Owns: reading `apiKey` and `apiSecret` from a folder (a mounted Secret), or holding them in
//! memory for a process that was given them otherwise; a generation that rises with each change.
//!
//! Never here: a credential in an error text or outside a redacting type; a pair whose halves
//! come from two versions of the Secret.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Ticks};
use crate::secrets::{Credentials, Secret};

/// File names in the folder, and keys of the Secret.
const FILES: [&str; 2] = ["apiKey", "apiSecret"];

/// A header value longer than this is refused by common servers; so is our reading of a wrong file.
const MAX_BYTES: u64 = 4096;

/// How old the last look at the files may be when the credentials are used.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why there are no credentials. Never says anything of their content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error(
        "cannot read the credentials file {path}: {reason}; the folder must hold `apiKey` and `apiSecret`"
    )]
    Unreadable {
        /// Which.
        path: String,
        /// The system's reason.
        reason: String,
    },
    /// It is empty, too long or not something a header can carry.
    #[error("the credential `{name}` {problem}")]
    Unusable {
        /// `apiKey` or `apiSecret`.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The files kept changing while they were read.
    #[error("the credentials in {path} are being replaced; reading them again later")]
    Unsettled {
        /// The folder.
        path: String,
    },
}

/// Credentials in use, with the number of the change that brought them.
#[derive(Debug, Clone)]
pub struct Current {
    /// The pair.
    pub credentials: Credentials,
    /// Rises with each change.
    pub generation: u64,
}

/// What is cheap to compare about a file.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

#[derive(Debug)]
struct Held {
    current: Option<Arc<Current>>,
    generation: u64,
    error: Option<CredentialsError>,
    stamp: Stamp,
    looked: Option<Ticks>,
}

/// Where the credentials come from. Shared by everything that uses them.
pub struct CredentialSource {
    folder: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
}

impl CredentialSource {
    /// From the files `apiKey` and `apiSecret` in a folder, read now and again whenever they
    /// change. Unreadable files are no error here: they may appear later.
    pub fn folder(folder: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let source = Self {
            folder: Some(folder.into()),
            clock,
            held: Mutex::new(Held::empty()),
        };
        source.reload();
        Arc::new(source)
    }

    /// In memory, to be changed with [`Self::replace`].
    ///
    /// # Errors
    /// When a header cannot carry them.
    pub fn memory(
        credentials: Credentials,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, CredentialsError> {
        let source = Self {
            folder: None,
            clock,
            held: Mutex::new(Held::empty()),
        };
        source.replace(credentials)?;
        Ok(Arc::new(source))
    }

    /// Puts other credentials in place; `true` when they differ from those before. Of a folder's
    /// source they last until its files change.
    ///
    /// # Errors
    /// When a header cannot carry them; those before stay.
    pub fn replace(&self, credentials: Credentials) -> Result<bool, CredentialsError> {
        usable(&credentials)?;
        Ok(self.lock().put(credentials))
    }

    /// The credentials to use now. Looks at the files if the last look is a few seconds old.
    ///
    /// # Errors
    /// When there are none yet. If there once were some, they are used until there are others.
    pub fn current(&self) -> Result<Arc<Current>, CredentialsError> {
        let now = self.clock.ticks();
        let mut held = self.lock();
        if let Some(folder) = &self.folder
            && held
                .looked
                .is_none_or(|looked| now.since(looked) >= LOOK_EVERY)
        {
            held.looked = Some(now);
            if stamp(folder) != held.stamp || held.current.is_none() {
                held.read(folder);
            }
        }
        held.current.clone().ok_or_else(|| {
            held.error.clone().unwrap_or(CredentialsError::Unusable {
                name: FILES[0],
                problem: "was never set",
            })
        })
    }

    /// Reads the files now, however recent the last look is. The generation tells whether that
    /// brought other credentials.
    pub fn reload(&self) -> u64 {
        let mut held = self.lock();
        if let Some(folder) = &self.folder {
            held.looked = Some(self.clock.ticks());
            held.read(folder);
        }
        held.generation
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialSource")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Held {
    fn empty() -> Self {
        Self {
            current: None,
            generation: 0,
            error: None,
            stamp: [None, None],
            looked: None,
        }
    }

    fn put(&mut self, credentials: Credentials) -> bool {
        self.error = None;
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.credentials == credentials)
        {
            return false;
        }
        self.generation += 1;
        self.current = Some(Arc::new(Current {
            credentials,
            generation: self.generation,
        }));
        true
    }

    /// The files, both from one version: a mounted Secret is exchanged as a whole, and could be
    /// between the two reads.
    fn read(&mut self, folder: &Path) {
        for _ in 0..3 {
            let before = stamp(folder);
            let result = read_folder(folder);
            if stamp(folder) != before {
                continue;
            }
            self.stamp = before;
            match result {
                Ok(credentials) => {
                    if self.put(credentials) && self.generation > 1 {
                        tracing::info!(folder = %folder.display(), "other credentials were read");
                    }
                }
                Err(error) => self.fail(error),
            }
            return;
        }
        self.fail(CredentialsError::Unsettled {
            path: folder.display().to_string(),
        });
    }

    fn fail(&mut self, error: CredentialsError) {
        if self.error.as_ref() != Some(&error) {
            tracing::warn!(%error, "the credentials cannot be read");
        }
        self.error = Some(error);
    }
}

fn read_folder(folder: &Path) -> Result<Credentials, CredentialsError> {
    Ok(Credentials {
        api_key: read_file(folder, FILES[0])?,
        api_secret: read_file(folder, FILES[1])?,
    })
}

fn read_file(folder: &Path, name: &'static str) -> Result<Secret, CredentialsError> {
    let path = folder.join(name);
    let mut text = String::new();
    fs::File::open(&path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| CredentialsError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
    // Editors and `echo` end a file with a newline; a key never does.
    let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
    check(name, secret.expose())?;
    Ok(secret)
}

/// Whether a header can carry these credentials.
///
/// # Errors
/// Which of the two it cannot, and why; nothing of its content.
pub fn usable(credentials: &Credentials) -> Result<(), CredentialsError> {
    check(FILES[0], credentials.api_key.expose())?;
    check(FILES[1], credentials.api_secret.expose())
}

fn check(name: &'static str, value: &str) -> Result<(), CredentialsError> {
    let problem = if value.is_empty() {
        "is empty"
    } else if value.len() as u64 > MAX_BYTES {
        "is longer than 4096 bytes"
    } else if !value.bytes().all(|b| b.is_ascii_graphic()) {
        "has spaces or characters outside printable ASCII, which a header cannot carry"
    } else {
        return Ok(());
    };
    Err(CredentialsError::Unusable { name, problem })
}

fn stamp(folder: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    FILES.map(|name| {
        let meta = fs::metadata(folder.join(name)).ok()?;
        Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct ByHand(AtomicU64);

    #[async_trait::async_trait]
    impl Clock for ByHand {
        fn now(&self) -> UnixMillis {
            UnixMillis(0)
        }
        fn ticks(&self) -> Ticks {
            Ticks(self.0.load(Ordering::SeqCst))
        }
        async fn sleep(&self, _: Duration) {}
    }

    fn write(folder: &Path, key: &str, secret: &str) {
        fs::write(folder.join("apiKey"), key).unwrap();
        fs::write(folder.join("apiSecret"), secret).unwrap();
    }

    fn key(source: &CredentialSource) -> String {
        let current = source.current().unwrap();
        current.credentials.api_key.expose().to_owned()
    }

    #[test]
    fn changed_files_are_noticed_when_the_last_look_is_old_enough() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ByHand::default());
        let source = CredentialSource::folder(folder.path(), Arc::clone(&clock) as Arc<dyn Clock>);
        assert!(matches!(
            source.current(),
            Err(CredentialsError::Unreadable { .. })
        ));
        write(folder.path(), "one\n", "s1");
        clock.0.store(2_000, Ordering::SeqCst);
        assert_eq!(key(&source), "one");
        let before = source.current().unwrap().generation;

        write(folder.path(), "other", "s2");
        clock.0.store(3_999, Ordering::SeqCst);
        assert_eq!(key(&source), "one");
        clock.0.store(4_000, Ordering::SeqCst);
        assert_eq!(key(&source), "other");
        assert!(source.current().unwrap().generation > before);
    }

    #[test]
    fn a_reload_is_immediate_and_unreadable_files_leave_the_last_good_pair() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "one", "s1");
        let source = CredentialSource::folder(folder.path(), Arc::new(ByHand::default()));
        let first = source.reload();
        assert_eq!(source.reload(), first);
        write(folder.path(), "", "s1");
        assert_eq!(source.reload(), first);
        fs::remove_file(folder.path().join("apiKey")).unwrap();
        assert_eq!(source.reload(), first);
        assert_eq!(key(&source), "one");
        write(folder.path(), "two", "s1");
        assert_eq!(source.reload(), first + 1);
        assert_eq!(key(&source), "two");
    }

    #[test]
    fn a_mounted_secrets_exchange_is_followed() {
        // As the kubelet does it: files are links through `..data`, which is renamed over.
        let folder = tempfile::tempdir().unwrap();
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(folder.path().join(version)).unwrap();
            write(&folder.path().join(version), text, text);
        }
        let link = |version: &str| {
            std::os::unix::fs::symlink(version, folder.path().join("..tmp")).unwrap();
            fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
        };
        link("v1");
        for name in FILES {
            std::os::unix::fs::symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
        }
        let clock = Arc::new(ByHand::default());
        let source = CredentialSource::folder(folder.path(), Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(key(&source), "one");
        link("v2");
        clock.0.store(10_000, Ordering::SeqCst);
        assert_eq!(key(&source), "two");
    }

    #[test]
    fn what_a_header_cannot_carry_is_refused_without_showing_it() {
        for bad in ["", "sp ace", "new\nline", "clé", &"x".repeat(5_000)] {
            let credentials = Credentials {
                api_key: Secret::new("fine"),
                api_secret: Secret::new(bad),
            };
            let error =
                CredentialSource::memory(credentials, Arc::new(ByHand::default())).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("apiSecret"), "{text}");
            assert!(bad.is_empty() || !text.contains(bad), "{text}");
        }
    }
}
