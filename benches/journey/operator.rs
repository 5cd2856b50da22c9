//! The real program: `bellhop operator`, against the API server and the instant provider.
//!
//! Owns: its start, and what its admin port says. Never here: a flag that users do not have.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::CLUSTER_ID;
use crate::process::Process;
use crate::product::{free_addresses, get};

/// Longer than any start may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// A running operator.
pub struct Operator {
    pub process: Process,
    admin: SocketAddr,
    started: Instant,
}

impl Operator {
    /// Starts it for the whole cluster, with the limits of its requests that it has by itself or
    /// none to speak of.
    pub fn start(
        kubeconfig: &Path,
        provider: SocketAddr,
        limited: bool,
        log: &Path,
    ) -> io::Result<Self> {
        let [admin, ..] = free_addresses()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellhop"));
        command
            .arg("operator")
            .arg(format!("--cluster-id={CLUSTER_ID}"))
            .arg("--lease-namespace=default")
            .arg(format!("--admin-listen={admin}"))
            .arg(format!(
                "--sandbox-registry-url=http://{provider}/registry/v1"
            ))
            .env("KUBECONFIG", kubeconfig);
        if !limited {
            command.args(["--requests-per-second=5000", "--requests-per-account=5000"]);
        }
        Ok(Self {
            process: Process::described(command, log)?,
            admin,
            started: Instant::now(),
        })
    }

    /// Waits until it is ready and knows so many subscriptions; how long that took from its start.
    pub fn until_ready(&self, known: usize) -> io::Result<Duration> {
        self.until("ready", |operator| {
            let answer = get(operator.admin, "/readyz").unwrap_or_default();
            answer.starts_with("HTTP/1.1 200")
                && operator.metric("bellhop_operator_subscriptions").ok() == Some(known as f64)
        })
    }

    /// Waits until it has nothing to do; how long that took from its start.
    pub fn until_quiet(&self) -> io::Result<Duration> {
        let mut quiet = 0;
        let took = self.until("quiet", |operator| {
            let busy = ["waiting", "running"].into_iter().any(|queue| {
                operator
                    .metric(&format!("bellhop_operator_queue_{queue}"))
                    .ok()
                    != Some(0.0)
            });
            quiet = if busy { 0 } else { quiet + 1 };
            quiet > 10
        })?;
        Ok(took.saturating_sub(Duration::from_millis(500)))
    }

    fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> io::Result<Duration> {
        while self.started.elapsed() < PATIENCE {
            if holds(self) {
                return Ok(self.started.elapsed());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::other(format!(
            "the operator is not {what} after {PATIENCE:?}"
        )))
    }

    /// What a metric says, all its labels together.
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        let text = get(self.admin, "/metrics")?;
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{', '_']))
        });
        let mut values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let first = values.next();
        let first = first.ok_or_else(|| io::Error::other(format!("no metric `{name}`")))?;
        Ok(first + values.sum::<f64>())
    }
}
