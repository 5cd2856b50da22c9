//! One subscription without a cluster: the data plane, and the registration beside it.
//!
//! Owns: the assembly that `bellhop run` and `bellhop demo` share, the drift check, what a
//! registration owes to the pipeline (a resync of each type whose rule was not live).
//!
//! Never here: a rule written by anyone but the executor; a secret in a message.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::dataplane::{DataPlane, Parts, Ports, Provider};
use super::keystore::{KEYS, KeyFolder, private_folder};
use super::manifests::Manifests;
use super::watch::Watch;
use crate::api::NotificationType;
use crate::clock::{Clock, SystemClock};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::provider::credentials::CredentialSource;
use crate::receiver::keys::{KeyChange, KeySource};
use crate::receiver::server::TlsFiles;
use crate::registration::{
    Channel, DriftCheck, Executor, KeyStore, RegistrationMetrics, Report, Resyncs, StoreError,
};
use crate::shutdown::Supervisor;
use crate::state::{State, StateError};

/// What a standalone process is told beside its manifests.
pub struct Standalone {
    /// Subscription and Secrets.
    pub manifests: Manifests,
    /// Where everything durable lies.
    pub data_dir: PathBuf,
    /// Certificate of the public port.
    pub tls: Option<TlsFiles>,
    /// How long requests in flight may take at the end.
    pub drain: Duration,
    /// Whether provider URLs may be plain http on other hosts than this one.
    pub allow_plain_http: bool,
    /// Whether the credentials may be of another account than the rules so far.
    pub move_account: bool,
}

impl Standalone {
    /// Starts everything on `ports` as vital tasks of `supervisor`.
    ///
    /// # Errors
    /// What cannot be started, and what to do about it.
    pub async fn start(
        self,
        ports: Ports,
        supervisor: &mut Supervisor,
    ) -> Result<Arc<DataPlane>, String> {
        self.start_at(Arc::new(SystemClock::new()), ports, supervisor)
            .await
    }

    /// The same by another clock: what a wrong or a stepping one does can only be shown so.
    ///
    /// # Errors
    /// As [`Standalone::start`].
    pub async fn start_at(
        self,
        clock: Arc<dyn Clock>,
        ports: Ports,
        supervisor: &mut Supervisor,
    ) -> Result<Arc<DataPlane>, String> {
        private_folder(&self.data_dir)?;
        self.manifests.lay_out(&self.data_dir)?;
        for part in &self.manifests.unused {
            tracing::warn!(
                part,
                "this part of the subscription does nothing without a cluster"
            );
        }
        let credentials = credentials(&self.manifests, clock.clone())?;
        let keys = self.data_dir.join(KEYS);
        private_folder(&keys)?;
        let settings = self.manifests.settings.clone();
        let desired = self.manifests.desired.clone();
        let every = self.manifests.drift_check_interval;
        let whole = Parts {
            settings,
            base_path: self.manifests.base_path.clone(),
            store: self.data_dir.join("store"),
            keys,
            credentials: credentials.clone(),
            allow_plain_http: self.allow_plain_http,
            tls: self.tls,
            admin_token: None,
            registers: true,
            drain: self.drain,
            ports,
            clock,
        };
        let (plane, changes) = DataPlane::start(whole, supervisor).await?;
        let plane = Arc::new(plane);
        let folder = Arc::new(KeyFolder::new(
            &self.data_dir,
            plane.ring.clone(),
            plane.clock.clone(),
        )?);
        let channel = Channel::new(
            plane.registry.clone(),
            folder.clone(),
            folder.clone(),
            credentials.clone(),
            self.move_account,
        );
        let owed = Owed {
            state: plane.state.clone(),
            pipeline: plane.pipeline.clone(),
        };
        let executor = Executor::new(
            plane.registry.clone(),
            folder.clone(),
            folder.clone(),
            Arc::new(owed.clone()),
            plane.clock.clone(),
            RegistrationMetrics::new(&plane.metrics),
        )
        .within(channel);
        // Nothing changes what is wanted while the process lives.
        let (_, desired) = watch::channel(Arc::new(desired));
        let (drift, handle) = DriftCheck::new(executor, plane.clock.clone(), desired, every);
        // The cell is new: it cannot have been set before.
        let _ = plane.registration.set(handle.clone());
        let token = supervisor.token();
        supervisor.spawn("registration", async move {
            drift.run(token).await;
            Ok(())
        });
        supervisor.spawn(
            "key changes",
            key_changes(changes, folder, owed.clone(), supervisor.token()),
        );
        let (watch, shown) = Watch::new(self.manifests, &self.data_dir, credentials, handle);
        // As new as that of registration.
        let _ = plane.manifests.set(shown);
        supervisor.spawn("manifests", watch.run(supervisor.token()));
        Ok(plane)
    }

    /// Removes (or disables, as `deletionPolicy` says) the rules of this subscription.
    ///
    /// # Errors
    /// What cannot be set up, and what to do about it.
    pub async fn deregister(self) -> Result<Report, String> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Metrics::new();
        let credentials = credentials(&self.manifests, clock.clone())?;
        let settings = &self.manifests.settings;
        let provider = Provider::new(
            settings,
            &credentials,
            self.allow_plain_http,
            &clock,
            &metrics,
        )?;
        let (changed, _nobody) = tokio::sync::mpsc::channel(1);
        let ring = Arc::new(crate::receiver::keys::KeyRing::new(
            clock.clone(),
            Duration::ZERO,
            None,
            None,
            changed,
            &metrics,
        ));
        let folder = Arc::new(KeyFolder::new(&self.data_dir, ring, clock.clone())?);
        let channel = Channel::new(
            provider.registry.clone(),
            folder.clone(),
            folder.clone(),
            credentials,
            self.move_account,
        );
        let executor = Executor::new(
            provider.registry,
            folder.clone(),
            folder,
            Arc::new(NothingOwed),
            clock,
            RegistrationMetrics::new(&metrics),
        )
        .within(channel);
        let desired = &self.manifests.desired;
        Ok(executor
            .deregister(desired.owner.clone(), desired.deletion)
            .await)
    }
}

/// The source of credentials that starts with what the manifests hold.
///
/// # Errors
/// When they cannot be sent in a header.
pub fn credentials(
    manifests: &Manifests,
    clock: Arc<dyn Clock>,
) -> Result<Arc<CredentialSource>, String> {
    CredentialSource::memory(manifests.credentials.clone(), clock)
        .map_err(|error| error.to_string())
}

/// Resyncs that registration calls for, kept in the store until the rule is live.
#[derive(Clone)]
struct Owed {
    state: Arc<dyn State>,
    pipeline: Arc<Pipeline>,
}

fn owed_fact(kind: NotificationType) -> String {
    format!("resync-owed/{}", kind.segment())
}

#[async_trait]
impl Resyncs for Owed {
    async fn due(&self, kind: NotificationType) -> Result<(), StoreError> {
        self.state
            .put_fact(&owed_fact(kind), Some(b"1".to_vec()))
            .await
            .map_err(|error| StoreError(error.to_string()))
    }

    async fn live(&self, kind: NotificationType) {
        let result: Result<(), StateError> = async {
            if self.state.fact(&owed_fact(kind)).await?.is_some() {
                self.pipeline
                    .request_resync(&[kind], "the rule became live or got another key")
                    .await?;
                self.state.put_fact(&owed_fact(kind), None).await?;
            }
            Ok(())
        }
        .await;
        if let Err(error) = result {
            tracing::warn!(%kind, %error, "cannot begin the resync that is owed; the next pass will");
        }
    }
}

/// Taking rules away owes nobody a resync.
struct NothingOwed;

#[async_trait]
impl Resyncs for NothingOwed {
    async fn due(&self, _kind: NotificationType) -> Result<(), StoreError> {
        Ok(())
    }

    async fn live(&self, _kind: NotificationType) {}
}

/// A key that changed at the provider is stored, and its type resynced: what came meanwhile was
/// refused. The resync is noted first: once the key is stored, nothing would show that one is owed.
async fn key_changes(
    mut changes: tokio::sync::mpsc::Receiver<KeyChange>,
    keys: Arc<KeyFolder>,
    owed: Owed,
    token: CancellationToken,
) -> Result<(), String> {
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = token.cancelled() => return Ok(()),
        };
        let Some(change) = change else {
            token.cancelled().await;
            return Ok(());
        };
        if let Err(error) = owed.due(change.kind).await {
            tracing::warn!(kind = %change.kind, %error, "cannot note the resync that a changed key calls for");
        }
        if change.source == KeySource::Registry
            && let Err(error) = keys.store(change.kind, &change.key).await
        {
            tracing::error!(%error, "the changed key works until the restart; then it is learned anew");
        }
        owed.live(change.kind).await;
    }
}
