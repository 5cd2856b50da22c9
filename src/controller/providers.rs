//! How the operator reaches the provider: one registry client per account in use.
//!
//! Owns: the addresses per environment, the seam at which tests put another registry, and
//! [`Watched`], which notes before the first write of a pass that writes have begun, and remembers
//! whose rules were seen.
//!
//! Never here: a decision about a rule; a write that is not noted first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::budget::Budget;
use super::client::WRITE_LIMIT;
use super::vault::Vault;
use crate::api::NotificationType;
use crate::api::v1alpha1::Environment;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::provider::base::BaseUrl;
use crate::provider::client::{ClientSettings, HttpClient};
use crate::provider::credentials::CredentialSource;
use crate::provider::registry::{RegistryClient, RegistryOptions};
use crate::provider::{Registry, RegistryError, Rule, RuleBody, ServerTime};
use crate::registration::conflict::{Account, SeenRule};

/// Makes registries.
pub trait Providers: Send + Sync + 'static {
    /// The registry of an account, asked with these credentials.
    fn registry(&self, account: &Account, credentials: Arc<CredentialSource>) -> Arc<dyn Registry>;
}

/// The addresses of one of the provider's services.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Of production.
    pub production: BaseUrl,
    /// Of the sandbox.
    pub sandbox: BaseUrl,
}

/// The real ones, over HTTP.
pub struct HttpProviders {
    http: Arc<HttpClient>,
    addresses: Addresses,
    budget: Budget,
    clock: Arc<dyn Clock>,
}

impl HttpProviders {
    /// Clients that share connections and budgets, and trust these authorities (PEM) as well.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(
        addresses: Addresses,
        authorities: Option<String>,
        budget: Budget,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let settings = ClientSettings {
            // Reads too: what cannot be answered in this time is asked again later.
            timeout: WRITE_LIMIT,
            // Rules are small, and thousands of subscriptions share this process.
            max_answer_bytes: 1024 * 1024,
            max_in_flight_bytes: 16 * 1024 * 1024,
            authorities,
            ..ClientSettings::default()
        };
        let bases = [&addresses.production, &addresses.sandbox];
        let http = HttpClient::new(settings, &bases, clock.clone(), metrics)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            http,
            addresses,
            budget,
            clock,
        })
    }
}

impl Providers for HttpProviders {
    fn registry(&self, account: &Account, credentials: Arc<CredentialSource>) -> Arc<dyn Registry> {
        let base = match account.environment {
            Environment::Production => &self.addresses.production,
            Environment::Sandbox => &self.addresses.sandbox,
        };
        let options = RegistryOptions {
            // The queue tries again as well, with a delay that blocks nobody.
            max_attempts: 2,
            ..RegistryOptions::default()
        };
        Arc::new(RegistryClient::behind(
            self.budget.turnstile(account),
            self.http.clone(),
            base.clone(),
            credentials,
            options,
            self.clock.clone(),
        ))
    }
}

/// What was seen of a type's rule: nothing, a rule without an owner, or whose it is.
pub type SeenRules = BTreeMap<NotificationType, Option<SeenRule>>;

/// A registry whose writes are noted in the owned Secret before they begin.
pub struct Watched {
    inner: Arc<dyn Registry>,
    vault: Arc<Vault>,
    seen: Mutex<SeenRules>,
    enabled: watch::Sender<usize>,
}

impl Watched {
    /// Around `inner`, for one subscription.
    pub fn new(inner: Arc<dyn Registry>, vault: Arc<Vault>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            vault,
            seen: Mutex::default(),
            enabled: watch::Sender::new(0),
        })
    }

    /// Whose rules were seen since the last call.
    pub fn take_seen(&self) -> SeenRules {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells whenever a rule was enabled.
    pub fn enabled(&self) -> watch::Receiver<usize> {
        self.enabled.subscribe()
    }

    fn saw(&self, kind: NotificationType, rule: Option<&Rule>) {
        let seen = rule.and_then(|rule| SeenRule::of(&rule.url));
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind, seen);
    }

    async fn note(&self) -> Result<(), RegistryError> {
        let noted = self.vault.begin_writes().await;
        noted.map_err(|reason| RegistryError::Unavailable {
            reason,
            after: None,
        })
    }
}

#[async_trait]
impl Registry for Watched {
    async fn get(&self, kind: NotificationType) -> Result<Option<Rule>, RegistryError> {
        let rule = self.inner.get(kind).await?;
        self.saw(kind, rule.as_ref());
        Ok(rule)
    }

    async fn create(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        self.note().await?;
        let rule = self.inner.create(kind, body).await?;
        self.saw(kind, Some(&rule));
        Ok(rule)
    }

    async fn update(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        self.note().await?;
        let rule = self.inner.update(kind, body).await?;
        self.saw(kind, Some(&rule));
        if !rule.disabled {
            self.enabled.send_modify(|count| *count += 1);
        }
        Ok(rule)
    }

    async fn delete(&self, kind: NotificationType) -> Result<(), RegistryError> {
        self.note().await?;
        self.inner.delete(kind).await
    }

    fn server_time(&self) -> Option<ServerTime> {
        self.inner.server_time()
    }
}
