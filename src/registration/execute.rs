//! Carries a plan out, in the two-phase order: create disabled, store the key, wait for the
//! receivers, enable.
//!
//! Owns: the passes. A pass reads a rule, plans, does the *first* step, takes the provider's answer
//! as what is there now, and plans again, until nothing is left: no step rests on an assumption
//! about an earlier one. Dropping a pass at any await is safe; so is killing the process.
//!
//! Never here: a decision about a rule (`plan` makes them all); a write in `mode: Observe`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::channel::Channel;
use super::judge::{Stop, judge};
use super::metrics::RegistrationMetrics;
use super::plan::{Action, DeletionPolicy, DesiredRules, Mode, Observed, Step, plan_rule};
use super::report::{Changes, Phase, Report};
use crate::api::{NotificationType, Owner};
use crate::clock::Clock;
use crate::provider::{Registry, RegistryError, Rule, RuleBody};
use crate::secrets::{Fingerprint, Secret};

/// How long a pass waits for receivers to load new keys.
pub const GATE_TIMEOUT: Duration = Duration::from_mins(3);

/// A gate that is passed within this time was open.
const NO_WAIT: Duration = Duration::from_secs(1);

/// Steps a pass spends on one type. The longest way (a foreign rule adopted, its key changed by
/// every PUT) takes eight; more means that somebody else writes too.
const STEPS: usize = 16;

/// How often a pass waits at the gate: again only when a key changed during the wait.
const GATE_ROUNDS: usize = 3;

/// Why something could not be stored; says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Where rule keys are kept: a Secret in the cluster, a file without one.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Keeps `key` as the key of `kind`. Durable when it returns. The previous key may stay valid
    /// for notifications that are on their way.
    async fn store(&self, kind: NotificationType, key: &Secret) -> Result<(), StoreError>;
    /// The fingerprint of the key that is kept.
    async fn known(&self, kind: NotificationType) -> Result<Option<Fingerprint>, StoreError>;
    /// Drops the key of a rule that is gone; done as well when there was none.
    async fn forget(&self, kind: NotificationType) -> Result<(), StoreError>;
}

/// Tells when receivers are ready to verify notifications of a rule.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Returns `true` when at least one receiver is ready and all ready ones report this key;
    /// `false` when there is something else to do before, so that waiting on is no use.
    /// The executor limits the wait; dropping it must be safe.
    async fn loaded(&self, kind: NotificationType, key: &Fingerprint) -> bool;
    /// What is being waited for, for people: "0 of 1 receivers ready".
    fn waiting_for(&self) -> String;
}

/// Resyncs that registration calls for: what happened while a rule was not live is never notified.
#[async_trait]
pub trait Resyncs: Send + Sync + 'static {
    /// Notes durably that one resync of `kind` is due. It must not begin yet: the rule is enabled
    /// (or its key corrected) only after this.
    async fn due(&self, kind: NotificationType) -> Result<(), StoreError>;
    /// The rule of `kind` is live: a resync that is due begins now. Called in every pass that
    /// finds the rule live, so that a crash in between costs nothing; usually none is due.
    async fn live(&self, kind: NotificationType);
}

/// Makes rules what they should be.
pub struct Executor {
    registry: Arc<dyn Registry>,
    keys: Arc<dyn KeyStore>,
    gate: Arc<dyn Gate>,
    resyncs: Arc<dyn Resyncs>,
    clock: Arc<dyn Clock>,
    metrics: RegistrationMetrics,
    /// Asked before each pass whether the account is still the same.
    channel: Option<Channel>,
    /// Corrections that had no effect (what was there, what was sent): not sent again until
    /// either differs.
    unapplied: Mutex<BTreeMap<NotificationType, (Option<Rule>, RuleBody)>>,
}

/// One type within a pass.
struct Work {
    kind: NotificationType,
    seen: Observed,
    changes: Changes,
    /// The writes that the provider took, to notice one without effect.
    written: Vec<Action>,
    steps: usize,
    stop: Option<Stop>,
    /// The registry has answered a read, so it took the credentials.
    answered: bool,
    /// The next step is to wait for receivers.
    waiting: bool,
}

impl Work {
    fn new(kind: NotificationType) -> Self {
        Self {
            kind,
            seen: Observed::default(),
            changes: Changes::default(),
            written: Vec::new(),
            steps: 0,
            stop: None,
            answered: false,
            waiting: false,
        }
    }

    fn is_live(&self) -> bool {
        self.seen.rule.as_ref().is_some_and(|rule| !rule.disabled)
    }

    fn key(&self) -> Option<&Secret> {
        self.seen.rule.as_ref()?.security_key.as_ref()
    }
}

impl Executor {
    /// An executor over these seams.
    pub fn new(
        registry: Arc<dyn Registry>,
        keys: Arc<dyn KeyStore>,
        gate: Arc<dyn Gate>,
        resyncs: Arc<dyn Resyncs>,
        clock: Arc<dyn Clock>,
        metrics: RegistrationMetrics,
    ) -> Self {
        Self {
            registry,
            keys,
            gate,
            resyncs,
            clock,
            metrics,
            channel: None,
            unapplied: Mutex::default(),
        }
    }

    /// The same, which writes only to the account that rules were registered in.
    #[must_use]
    pub fn within(self, channel: Channel) -> Self {
        Self {
            channel: Some(channel),
            ..self
        }
    }

    /// One pass over all seven types. Never fails as a whole: what went wrong is in the report, and
    /// one type's trouble does not stop the others, except refused credentials, which end the pass.
    pub async fn reconcile(&self, desired: &DesiredRules) -> Report {
        if let Some(channel) = &self.channel
            && let Err(stop) = channel.judge(desired).await
        {
            return self.stopped(desired, &stop);
        }
        self.reconcile_types(desired, &NotificationType::ALL).await
    }

    /// What a pass reports that stopped before the first type.
    fn stopped(&self, desired: &DesiredRules, stop: &Stop) -> Report {
        let work = |kind| Work {
            stop: Some(stop.clone()),
            // To find that the account is another one took an answer.
            answered: *stop == Stop::ChannelChanged,
            ..Work::new(kind)
        };
        let works = NotificationType::ALL.into_iter().map(work).collect();
        let report = Self::report(desired, desired.rules.len(), works);
        self.metrics.passed(&report);
        report
    }

    /// The same for some types only: the others are not looked at and not in the report.
    pub async fn reconcile_types(
        &self,
        desired: &DesiredRules,
        kinds: &[NotificationType],
    ) -> Report {
        let mut works: Vec<Work> = kinds.iter().copied().map(Work::new).collect();
        for work in &mut works {
            if let Err(stop) = self.start(desired, work).await {
                let ends_pass = stop.ends_pass();
                work.stop = Some(stop);
                if ends_pass {
                    break;
                }
            }
        }
        for _ in 0..GATE_ROUNDS {
            if Self::refused(&works) || !works.iter().any(|work| work.waiting) {
                break;
            }
            let asked = self.clock.ticks();
            self.pass_gate(&mut works).await;
            // After a wait it is looked again before enabling. Without one the look that the rule
            // was made after is as good, and a fourth of all requests of a registration is saved.
            let waited = self.clock.ticks().since(asked) > NO_WAIT;
            for work in works.iter_mut().filter(|work| work.waiting) {
                work.waiting = false;
                if work.stop.is_some() {
                    continue;
                }
                let done = if waited {
                    self.start(desired, work).await
                } else {
                    self.advance(desired, work).await
                };
                if let Err(stop) = done {
                    let ends_pass = stop.ends_pass();
                    work.stop = Some(stop);
                    if ends_pass {
                        break;
                    }
                }
            }
        }
        for work in &works {
            // A resync that begins before the rule is changed would be due again after it.
            let open = work.stop.as_ref().is_some_and(Stop::is_open);
            if desired.rules.contains_key(&work.kind)
                && desired.mode == Mode::Manage
                && !open
                && work.is_live()
                && work.key().map(Secret::fingerprint) == work.seen.stored
            {
                self.resyncs.live(work.kind).await;
            }
        }
        let wanted = kinds.iter().filter(|kind| desired.rules.contains_key(kind));
        let report = Self::report(desired, wanted.count(), works);
        self.metrics.passed(&report);
        report
    }

    /// Removes (or, with [`DeletionPolicy::Retain`], disables) all rules of `owner`, and verifies
    /// it. Done when [`Report::is_complete`].
    pub async fn deregister(&self, owner: Owner, policy: DeletionPolicy) -> Report {
        self.reconcile(&DesiredRules::none(owner, policy)).await
    }

    fn refused(works: &[Work]) -> bool {
        works
            .iter()
            .any(|work| work.stop.as_ref().is_some_and(Stop::ends_pass))
    }

    /// Looks, then goes as far as possible.
    async fn start(&self, desired: &DesiredRules, work: &mut Work) -> Result<(), Stop> {
        work.seen.stored = self.keys.known(work.kind).await?;
        self.observe(work).await?;
        let plan = plan_rule(desired, work.kind, &work.seen);
        if !plan.steps.is_empty() && work.seen.stored.is_some() && work.steps == 0 {
            self.metrics.drifted(work.kind);
        }
        self.advance(desired, work).await
    }

    async fn observe(&self, work: &mut Work) -> Result<(), Stop> {
        let answer = self.registry.get(work.kind).await;
        self.metrics.did(work.kind, "read", answer.is_ok());
        work.seen.rule = answer?;
        work.answered = true;
        Ok(())
    }

    /// Does step after step until nothing is left, or receivers must be waited for.
    async fn advance(&self, desired: &DesiredRules, work: &mut Work) -> Result<(), Stop> {
        loop {
            let plan = plan_rule(desired, work.kind, &work.seen);
            let Some(step) = plan.steps.into_iter().next() else {
                self.unapplied().remove(&work.kind);
                return Ok(());
            };
            if desired.mode == Mode::Observe {
                return Ok(());
            }
            if step.action == Action::AwaitReceiver {
                work.waiting = true;
                return Ok(());
            }
            if work.written.contains(&step.action) || self.had_no_effect(work, &step.action) {
                return Err(self.without_effect(work, step));
            }
            work.steps += 1;
            if work.steps > STEPS {
                return Err(Stop::Contended);
            }
            tracing::info!(kind = %work.kind, action = step.action.name(), reason = %step.reason, "registration step");
            let done = self.perform(work, step.action.clone()).await;
            self.metrics
                .did(work.kind, step.action.name(), done.is_ok());
            done?;
        }
    }

    fn unapplied(&self) -> MutexGuard<'_, BTreeMap<NotificationType, (Option<Rule>, RuleBody)>> {
        self.unapplied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn had_no_effect(&self, work: &Work, action: &Action) -> bool {
        let Action::Update(body) = action else {
            return false;
        };
        self.unapplied()
            .get(&work.kind)
            .is_some_and(|(seen, sent)| {
                sent == body && same_but_for_time(seen.as_ref(), work.seen.rule.as_ref())
            })
    }

    fn without_effect(&self, work: &Work, step: Step) -> Stop {
        let Action::Update(body) = step.action else {
            return Stop::Contended;
        };
        self.unapplied()
            .insert(work.kind, (work.seen.rule.clone(), body));
        Stop::NotApplied { what: step.reason }
    }

    async fn perform(&self, work: &mut Work, action: Action) -> Result<(), Stop> {
        match &action {
            Action::Create(body) => match self.registry.create(work.kind, body).await {
                Ok(rule) => {
                    work.changes.created = true;
                    let without_key = rule.security_key.is_none();
                    work.seen.rule = Some(rule);
                    if without_key {
                        self.observe(work).await?;
                    }
                }
                // Somebody was faster, or our own lost call was: look who it was.
                Err(RegistryError::Exists) => return self.observe(work).await,
                Err(error) => return Err(error.into()),
            },
            Action::Adopt(body) => {
                self.put(work, body).await?;
                work.changes.created = true;
            }
            Action::Enable(body) => {
                self.resyncs.due(work.kind).await?;
                self.put(work, body).await?;
                work.changes.enabled |= work.is_live();
            }
            Action::Update(body) => {
                if !body.disabled {
                    self.resyncs.due(work.kind).await?;
                }
                self.put(work, body).await?;
                work.changes.corrected |= !body.disabled;
            }
            Action::Disable(body) => self.put(work, body).await?,
            Action::Delete => {
                match self.registry.delete(work.kind).await {
                    Ok(()) | Err(RegistryError::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
                // Gone only when a read says so.
                self.observe(work).await?;
            }
            Action::StoreKey => self.store_key(work).await?,
            Action::ForgetKey => {
                self.keys.forget(work.kind).await?;
                work.seen.stored = None;
            }
            Action::AwaitReceiver => {}
        }
        if !matches!(action, Action::StoreKey | Action::ForgetKey) {
            work.written.push(action);
        }
        Ok(())
    }

    /// PUT; a 404 means that the rule is gone and the next plan creates it.
    async fn put(&self, work: &mut Work, body: &RuleBody) -> Result<(), Stop> {
        match self.registry.update(work.kind, body).await {
            Ok(Rule {
                security_key: None, ..
            }) => self.observe(work).await,
            Ok(rule) => {
                work.seen.rule = Some(rule);
                Ok(())
            }
            Err(RegistryError::NotFound) => {
                work.seen.rule = None;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn store_key(&self, work: &mut Work) -> Result<(), Stop> {
        let Some(key) = work.key().cloned() else {
            return Err(Stop::Contended);
        };
        let changed = work.is_live() || work.seen.stored.is_some();
        if work.is_live() {
            // Notifications under this key were refused so far.
            self.resyncs.due(work.kind).await?;
        }
        self.keys.store(work.kind, &key).await?;
        work.seen.stored = Some(key.fingerprint());
        work.changes.key_changed |= changed;
        Ok(())
    }

    /// Waits for all keys at once, and for no longer than [`GATE_TIMEOUT`].
    async fn pass_gate(&self, works: &mut [Work]) {
        let mut asked = BTreeMap::new();
        for work in works.iter().filter(|work| work.waiting) {
            if let Some(key) = work.key() {
                asked.insert(work.kind, key.fingerprint());
            }
        }
        let mut loaded = BTreeSet::new();
        {
            let mut asks: FuturesUnordered<_> = asked
                .iter()
                .map(|(kind, key)| async move { (*kind, self.gate.loaded(*kind, key).await) })
                .collect();
            let deadline = self.clock.sleep(GATE_TIMEOUT);
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    biased;
                    next = asks.next() => match next {
                        Some((kind, true)) => _ = loaded.insert(kind),
                        Some((_, false)) => {}
                        None => break,
                    },
                    () = &mut deadline => break,
                }
            }
        }
        for work in works.iter_mut().filter(|work| work.waiting) {
            let passed = loaded.contains(&work.kind);
            self.metrics.did(work.kind, "await_receiver", passed);
            if passed {
                work.seen.loaded = asked.remove(&work.kind);
            } else {
                work.stop = Some(Stop::NotLoaded {
                    waiting_for: self.gate.waiting_for(),
                });
            }
        }
    }

    fn report(desired: &DesiredRules, wanted: usize, works: Vec<Work>) -> Report {
        let refused = works.iter().find_map(|work| match &work.stop {
            Some(Stop::Unauthorized { status }) => Some(*status),
            _ => None,
        });
        let mut report = Report {
            wanted,
            ..Report::default()
        };
        for mut work in works {
            if work.waiting && work.stop.is_none() {
                work.stop = Some(Stop::Contended);
            }
            if let Some(status) = refused {
                work.stop = Some(Stop::Unauthorized { status });
            }
            match &work.stop {
                Some(Stop::Unauthorized { .. }) => report.credentials_valid = Some(false),
                Some(stop) => report.retry_after = report.retry_after.max(stop.after()),
                None => {}
            }
            if refused.is_none() && work.answered {
                report.credentials_valid = Some(true);
            }
            let Some(mut rule) = judge(desired, work.kind, &work.seen, work.stop) else {
                continue;
            };
            rule.changes = work.changes;
            if desired.rules.contains_key(&work.kind)
                && matches!(rule.phase, Phase::Registered | Phase::Disabled)
            {
                report.in_place += 1;
            }
            report.rules.insert(work.kind, rule);
        }
        report
    }
}

/// Whether a rule is still what it was; `updatedOn` and the key may move by our own writes.
fn same_but_for_time(before: Option<&Rule>, now: Option<&Rule>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => {
            (&before.url, before.disabled, &before.config) == (&now.url, now.disabled, &now.config)
        }
        _ => false,
    }
}
