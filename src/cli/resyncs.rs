//! Resyncs that the operator calls for: per type a number that rises with each.
//!
//! Owns: the comparison of the numbers in the mounted file with those that were done, which are
//! facts in the store. Any other number than the one that was done calls for a resync, a lower one
//! too: a Secret that was lost may begin anew under a clock that was put back. A resync is asked for
//! durably before its number is noted: a crash in between costs one resync more, never one less.
//!
//! Never here: the resync itself; a write to the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::NotificationType;
use crate::clock::Clock;
use crate::files::Stamp;
use crate::pipeline::Pipeline;
use crate::state::{State, StateError};

/// How often the file is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The last one that was called for, by type.
type Numbers = BTreeMap<NotificationType, u64>;

/// See the module.
pub struct Asked {
    file: PathBuf,
    state: Arc<dyn State>,
    pipeline: Arc<Pipeline>,
    clock: Arc<dyn Clock>,
}

impl Asked {
    /// Over this file, which may be missing: then none was called for.
    pub fn new(
        file: PathBuf,
        state: Arc<dyn State>,
        pipeline: Arc<Pipeline>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            file,
            state,
            pipeline,
            clock,
        }
    }

    /// Does it until `token` is cancelled. A vital task.
    ///
    /// # Errors
    /// None at present; the type is that of vital tasks.
    pub async fn run(self, token: CancellationToken) -> Result<(), String> {
        let mut done = Stamp::default();
        loop {
            let stamp = Stamp::of_file(&self.file);
            if stamp != done {
                match self.take_over().await {
                    Ok(()) => done = stamp,
                    Err(problem) => {
                        tracing::warn!(%problem, "resyncs that were called for wait");
                    }
                }
            }
            tokio::select! {
                () = self.clock.sleep(LOOK_AGAIN) => {}
                () = token.cancelled() => return Ok(()),
            }
        }
    }

    async fn take_over(&self) -> Result<(), String> {
        let text = match tokio::fs::read_to_string(&self.file).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("{}: {error}", self.file.display())),
        };
        let numbers: Numbers = serde_json::from_str(&text)
            .map_err(|error| format!("{}: {error}", self.file.display()))?;
        for (kind, number) in numbers {
            let asked = self.ask(kind, number).await;
            asked.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn ask(&self, kind: NotificationType, number: u64) -> Result<(), StateError> {
        let name = format!("resyncs-done/{}", kind.segment());
        let done = self.state.fact(&name).await?;
        let done = done.and_then(|text| String::from_utf8(text).ok()?.parse::<u64>().ok());
        if number == done.unwrap_or(0) {
            return Ok(());
        }
        let why = "the operator calls for it: the rule became live or got another key";
        self.pipeline.request_resync(&[kind], why).await?;
        let number = number.to_string().into_bytes();
        self.state.put_fact(&name, Some(number)).await
    }
}
