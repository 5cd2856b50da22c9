//! The way to a cluster, for the commands that need one.
//!
//! Owns: where the connection comes from (KUBECONFIG, `~/.kube/config`, or the pod), and what to
//! say when there is none. Never here: what is done there.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Failure;

/// A connection without an answer for this long is dead: longer than a watch without news.
const SILENCE: Duration = Duration::from_secs(295);

/// Connects, in the context named or the current one.
///
/// # Errors
/// When there is no configuration, or it makes no sense.
pub async fn connect(context: Option<String>) -> Result<Client, Failure> {
    let mut config = match context {
        Some(context) => {
            let file = Kubeconfig::read().map_err(|error| no_cluster(&error))?;
            let options = KubeConfigOptions {
                context: Some(context),
                ..KubeConfigOptions::default()
            };
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|error| no_cluster(&error))?
        }
        None => Config::infer().await.map_err(|error| no_cluster(&error))?,
    };
    config.read_timeout = Some(SILENCE);
    Client::try_from(config).map_err(|error| no_cluster(&error))
}

fn no_cluster(error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!(
        "there is no way to a cluster: {error}; set KUBECONFIG, or run in a pod with a service account"
    ))
}
