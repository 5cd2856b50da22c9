//! One supervisor for all vital tasks of a process, and the signal that asks them to end.
//!
//! Owns: the cancellation token, SIGTERM and Ctrl-C, and the rule that a vital task that ends
//! by itself takes the process down (a dead task nobody sees is the worst failure there is).
//!
//! Never here: a detached task; what a task does when it is asked to end (each drains itself).

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs named vital tasks until the process is asked to end or one of them ends first.
#[derive(Debug, Default)]
pub struct Supervisor {
    token: CancellationToken,
    tasks: JoinSet<(&'static str, Result<(), String>)>,
}

impl Supervisor {
    /// A supervisor with no task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process should end: tasks watch it and drain.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Adds a vital task. It must run until [`Supervisor::token`] is cancelled; an `Err`, a panic
    /// or an early `Ok` ends the process.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits for SIGTERM, Ctrl-C, a cancelled token or the end of a task; then cancels the token
    /// and gives the tasks `deadline` to drain. A second signal ends the wait.
    ///
    /// # Errors
    /// What ended the process when that was not a request: the task's name and its error.
    pub async fn run(self, deadline: Duration) -> Result<(), String> {
        let token = self.token();
        let signal = async {
            asked_to_end().await;
            tracing::info!("shutting down");
            token.cancel();
        };
        let tasks = self.run_until_cancelled(deadline);
        tokio::pin!(tasks);
        tokio::select! {
            ended = &mut tasks => return ended,
            () = signal => {}
        }
        tokio::select! {
            ended = tasks => ended,
            () = asked_to_end() => {
                tracing::warn!("second signal: not waiting for the drain");
                Ok(())
            }
        }
    }

    /// As [`Supervisor::run`], for a part of a process that somebody else ends: signals are not
    /// listened to, only the token.
    ///
    /// # Errors
    /// As [`Supervisor::run`].
    pub async fn run_until_cancelled(mut self, deadline: Duration) -> Result<(), String> {
        let mut failure = None;
        tokio::select! {
            biased;
            () = self.token.cancelled() => {}
            Some(ended) = self.tasks.join_next() => {
                failure = describe(ended).or(Some("a vital task ended early".to_owned()));
            }
        }
        self.token.cancel();
        let drained = tokio::time::timeout(deadline, async {
            while let Some(ended) = self.tasks.join_next().await {
                failure = failure.take().or(describe(ended));
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                deadline_seconds = deadline.as_secs(),
                "drain deadline passed"
            );
        }
        failure.map_or(Ok(()), Err)
    }
}

fn describe(
    ended: Result<(&'static str, Result<(), String>), tokio::task::JoinError>,
) -> Option<String> {
    match ended {
        Ok((_, Ok(()))) => None,
        Ok((name, Err(error))) => Some(format!("{name}: {error}")),
        Err(error) => Some(format!("a vital task panicked: {error}")),
    }
}

/// Returns at SIGTERM or Ctrl-C.
pub async fn asked_to_end() {
    let mut terminate = match tokio::signal::unix::signal(
        tokio::signal::unix::SignalKind::terminate(),
    ) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM; only Ctrl-C will end this process cleanly");
            let _ = tokio::signal::ctrl_c().await;
            return;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
