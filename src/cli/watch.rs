//! The manifest files of a running process: what happens when one changes.
//!
//! Owns: noticing the change, taking over what can be (credentials, the Secrets of sinks), and
//! saying that the rest waits for a restart. A subscription that changes while it runs is not
//! acted on in parts: which rules, queues and files one field concerns would be for the reader of
//! the log to guess.
//!
//! Never here: half of a file taken over. Mistakes leave everything as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::manifests::{Manifests, read_files};
use crate::provider::credentials::CredentialSource;
use crate::registration::Handle;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// How the files compare with what runs, for `/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestStatus {
    /// Parts of the subscription that differ from what runs; a restart applies them.
    pub restart_to_apply: Vec<String>,
    /// Why the files cannot be used as they are now, every mistake a line; what ran before goes on.
    pub mistakes: Option<String>,
}

/// The files, and what was made of them.
pub struct Watch {
    running: Manifests,
    contents: Vec<(PathBuf, Vec<u8>)>,
    data_dir: PathBuf,
    credentials: Arc<CredentialSource>,
    registration: Handle,
    status: watch::Sender<ManifestStatus>,
}

impl Watch {
    /// Watches what `running` was read from. Also gives what is to be shown of it.
    pub fn new(
        running: Manifests,
        data_dir: &Path,
        credentials: Arc<CredentialSource>,
        registration: Handle,
    ) -> (Self, watch::Receiver<ManifestStatus>) {
        let (status, shown) = watch::channel(ManifestStatus::default());
        let own = Self {
            contents: running.contents().to_vec(),
            running,
            data_dir: data_dir.to_owned(),
            credentials,
            registration,
            status,
        };
        (own, shown)
    }

    /// Until `token` is cancelled.
    ///
    /// # Errors
    /// Never: trouble with a file is told and waited out.
    pub async fn run(mut self, token: CancellationToken) -> Result<(), String> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => self.look(),
                () = token.cancelled() => return Ok(()),
            }
        }
    }

    /// Files that cannot be read now (an editor may be writing them) are looked at again the next
    /// time.
    fn look(&mut self) {
        let files: Vec<PathBuf> = self.contents.iter().map(|(file, _)| file.clone()).collect();
        let Ok(contents) = read_files(&files) else {
            return;
        };
        if contents == self.contents {
            return;
        }
        self.contents = contents;
        let read = Manifests::parse(self.contents.clone(), self.running.overrides().clone());
        let status = match read.and_then(|found| self.take(&found).map(|()| found)) {
            Ok(found) => ManifestStatus {
                restart_to_apply: self.running.differences(&found),
                mistakes: None,
            },
            Err(mistakes) => ManifestStatus {
                mistakes: Some(mistakes),
                ..self.status.borrow().clone()
            },
        };
        self.tell(status);
    }

    /// Takes over what can be while it runs. Registration tries other credentials at once: after a
    /// refusal it may have hours to wait.
    fn take(&self, found: &Manifests) -> Result<(), String> {
        found.lay_out(&self.data_dir)?;
        let taken = self.credentials.replace(found.credentials.clone());
        if taken.map_err(|error| error.to_string())? {
            tracing::info!("the credentials changed; the new ones are in use");
            self.registration.check_now();
        }
        Ok(())
    }

    fn tell(&self, status: ManifestStatus) {
        if *self.status.borrow() == status {
            return;
        }
        if let Some(mistakes) = &status.mistakes {
            tracing::warn!(%mistakes, "the manifest changed, but cannot be used; what ran before goes on");
        } else if status.restart_to_apply.is_empty() {
            tracing::info!("the manifest says again what runs");
        } else {
            tracing::warn!(
                changed = status.restart_to_apply.join(", "),
                "the subscription changed in its file; restart to apply it"
            );
        }
        self.status.send_replace(status);
    }
}
