//! One pass over one subscription: the steps in their order, and when to come back.
//!
//! Never here: a step's own work.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::ObjectMeta;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Context;
use super::apply::{add_finalizer, has_finalizer, patch_status};
use super::between::receivers_news;
use super::dereference::{Dereferenced, dereference};
use super::finalize::{Deleted, Deletion};
use super::fleet::{Key, Object, Snapshot};
use super::queue::Next;
use super::reach::probes;
use super::register::{Outcome, Pass};
use super::session::{Inputs, PAUSED, RECONCILE_AT, ROTATE_KEYS, Session, annotation, first_look};
use super::status::Findings;
use super::teller::Teller;
use super::validate::{Checked, Refused, account, credentials, owned, validate};
use crate::api::v1alpha1::{Reachability, WebhookSubscription};
use crate::api::{Condition, ConditionStatus, ConditionType, Reason};
use crate::registration::Mode;
use crate::registration::conflict::Account;
use crate::registration::drift::jittered;

/// How long a pass keeps off an account that another one is working on.
const BUSY: Duration = Duration::from_millis(500);

/// Works on one subscription; `None` when it is gone. `due`: the time has come that the last pass
/// asked for.
pub(super) async fn reconcile(context: Arc<Context>, key: Key, due: bool) -> Option<Next> {
    let span = tracing::info_span!("pass", subscription = %key);
    pass(context, key, due).instrument(span).await
}

async fn pass(context: Arc<Context>, key: Key, due: bool) -> Option<Next> {
    let Some(snapshot) = context.fleet.get(&key) else {
        context.forget(&key);
        return None;
    };
    let session = context.session(&key);
    let mut session = session.lock().await;
    let inputs = Inputs::of(snapshot.object.metadata(), snapshot.changes);
    if session.deleted.is_some() && session.deleted == snapshot.object.metadata().uid {
        return Some(Next::WhenAsked);
    }
    let as_before = !due
        && !snapshot.moved
        && session.last.as_ref() == Some(&inputs)
        && !session.is_overwritten_in(&snapshot.object);
    let news = context.reach.shown(&key);
    let news = news.filter(|found| session.looked != Some(*found));
    let receivers = receivers_news(&context, &key, &session);
    if as_before && news.is_none() && !receivers {
        context.metrics.reconciled("unchanged", None);
        return Some(Next::AsBefore);
    }
    let subscription = match &snapshot.object {
        Object::Known(object) => object.clone(),
        Object::Undecodable(metadata, why) => {
            session.last = Some(inputs);
            context.reach.forget(&key);
            return Some(undecodable(&context, &key, metadata, why).await);
        }
    };
    let begun = Instant::now();
    let teller = Teller::new(&context, &key, &subscription, session.said.as_ref());
    let subscription = teller.current().await;
    let work = Work {
        context: &context,
        key: &key,
        subscription: &subscription,
        snapshot: &snapshot,
        teller: &teller,
    };
    let opening = news.is_some_and(|found| opens(&subscription, found));
    let ended = if as_before && !opening {
        work.touch_up(&mut session, news).await
    } else {
        work.run(&mut session, inputs).await
    };
    session.said = Some(teller.into_said());
    let next = match ended {
        Ok(next) => next,
        Err(Trouble::Busy) => {
            return Some(Next::Soon(jittered(BUSY)));
        }
        Err(Trouble::Superseded) => {
            session.last = None;
            Next::Soon(Duration::ZERO)
        }
        Err(Trouble::Api(error)) => {
            context.metrics.failed("kubernetes");
            tracing::warn!(%error, "a pass was broken off; it is tried again");
            session.last = None;
            Next::Retry {
                at_least: Duration::ZERO,
            }
        }
    };
    let outcome = match next {
        Next::Retry { .. } => "retry",
        _ => "ok",
    };
    context.metrics.reconciled(outcome, Some(begun.elapsed()));
    Some(next)
}

/// Why a pass came to nothing.
pub(super) enum Trouble {
    /// Another pass works on the account.
    Busy,
    /// The subscription changed under the pass, which was given up for the next.
    Superseded,
    /// The API server did not do what was asked.
    Api(kube::Error),
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

/// One pass.
pub(super) struct Work<'a> {
    pub context: &'a Arc<Context>,
    pub key: &'a Key,
    pub subscription: &'a Arc<WebhookSubscription>,
    snapshot: &'a Snapshot,
    pub teller: &'a Teller<'a>,
}

/// Whether rules that were held back may go live.
fn opens(subscription: &WebhookSubscription, found: Reason) -> bool {
    let wanted = subscription.spec.registration.reachability;
    wanted == Reachability::Require && found == Reason::Reachable
}

impl Work<'_> {
    async fn run(&self, session: &mut Session, inputs: Inputs) -> Result<Next, Trouble> {
        if self.annotation(PAUSED).as_deref() == Some("true") {
            let kind = ConditionType::Accepted;
            let paused = Condition::new(kind, ConditionStatus::Unknown, Reason::Paused);
            self.context.reach.forget(self.key);
            self.context.leave_objects(self.key, session);
            self.teller.say(&Findings::default().with(paused)).await?;
            return Ok(rest(session, inputs, None));
        }
        let deleting = self.subscription.metadata.deletion_timestamp.is_some();
        if deleting && !has_finalizer(&self.subscription.metadata) {
            return Ok(rest(session, inputs, None));
        }
        let read = match dereference(&self.context.client, self.subscription).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return self.forbidden(session, inputs).await;
            }
            read => read?,
        };
        let vault = session
            .vault(self.context, self.key, self.subscription, &read)
            .await;
        let version = read.credentials.as_ref();
        let version = version.and_then(|found| found.metadata.resource_version.clone());
        self.context.fleet.read(self.key, version, vault.clone());
        session.begin_gate(self.context, self.key, &inputs);
        if deleting {
            self.context.leave_objects(self.key, session);
            let _turn = self.turn(self.account(&read))?;
            self.context.reach.forget(self.key);
            return Ok(self.delete(session, inputs, &read, vault).await?);
        }
        let owner = self.context.fleet.owner(self.key);
        let checked = match validate(self.subscription, &read, owner) {
            Ok(checked) => checked,
            Err(Refused(condition)) => {
                // Nobody can be told which URL and key hold.
                self.context.reach.forget(self.key);
                let findings = if condition.kind == ConditionType::Accepted {
                    self.context.leave_objects(self.key, session);
                    Findings::default()
                } else {
                    Findings::accepted(self.subscription, self.heard())
                };
                self.say(session, findings.with(condition)).await?;
                // What mends it is watched.
                return Ok(rest(session, inputs, None));
            }
        };
        if session.last.is_none()
            && !session.begun
            && let Some(delay) = self.settled_before(&checked, &read)
            && self.take_over(session).await?
        {
            let (probe, desired) = (owned(&read).probe, &checked.desired);
            let reach = &self.context.reach;
            let looked = reach.look(self.key, self.subscription, desired, probe.as_ref());
            session.looked = Some(looked.reason);
            self.context
                .ask_all(self.context.fleet.set_account(self.key, &checked.account));
            return Ok(rest(session, inputs, Some(delay)));
        }
        let _turn = self.turn(checked.account.clone())?;
        session.begun = true;
        if checked.desired.mode == Mode::Manage {
            add_finalizer(&self.context.client, self.key, &self.subscription.metadata).await?;
        }
        let interval = checked.interval;
        let pass = Pass {
            context: self.context,
            key: self.key,
            subscription: self.subscription,
            checked,
            vault,
            teller: self.teller,
            unfinished: self.snapshot.unfinished,
        };
        let outcome = pass.run(session).await?;
        if outcome.superseded {
            return Err(Trouble::Superseded);
        }
        self.say(session, outcome.findings.clone()).await?;
        session.looked = outcome.findings.reason(ConditionType::Reachable);
        Ok(self.next(session, inputs, interval, &outcome))
    }

    /// The operator may not read a Secret. Nobody tells when it may: it is tried again.
    async fn forbidden(&self, session: &mut Session, inputs: Inputs) -> Result<Next, Trouble> {
        let kind = ConditionType::CredentialsValid;
        let status = ConditionStatus::Unknown;
        let secret = &self.subscription.spec.credentials_secret_ref.name;
        let forbidden = Condition::new(kind, status, Reason::SecretForbidden)
            .about(&format!("Secret {secret}"));
        let findings = Findings::accepted(self.subscription, self.heard()).with(forbidden);
        session.looked = findings.reason(ConditionType::Reachable);
        self.say(session, findings).await?;
        self.context.metrics.failed("forbidden");
        session.last = Some(inputs);
        Ok(Next::Retry {
            at_least: Duration::ZERO,
        })
    }

    fn annotation(&self, name: &str) -> Option<String> {
        annotation(self.subscription, name)
    }

    /// After a start: whether a former pass has left nothing to do. Then the first look falls
    /// somewhere into the interval, and when.
    fn settled_before(&self, checked: &Checked, read: &Dereferenced) -> Option<Duration> {
        if self.snapshot.unfinished || !has_finalizer(&self.subscription.metadata) {
            return None;
        }
        let status = self.subscription.status.as_ref()?;
        let is = |kind: ConditionType, status_is: &str| {
            let said = status.condition(kind);
            said.is_some_and(|said| said.status == status_is)
        };
        let known = status.acknowledged.clone().unwrap_or_default();
        let content = owned(read);
        let registration = &self.subscription.spec.registration;
        let probed = probes(registration.mode, registration.reachability);
        // A pause or a lasting trouble that is over since must be seen to be over.
        let settled = is(ConditionType::Registered, "True")
            && is(ConditionType::Accepted, "True")
            && !is(ConditionType::Stalled, "True")
            && Some(status.observed_generation) == self.subscription.metadata.generation
            && !is(ConditionType::Reconciling, "True")
            && known.reconcile_at == self.annotation(RECONCILE_AT)
            && known.rotate_keys == self.annotation(ROTATE_KEYS)
            && content.credentials.as_ref() == Some(&checked.live)
            && content.pending.is_none()
            && content.owed.is_empty()
            && (content.probe.is_some() || !probed);
        let now = self.context.clock.now();
        let expiry = content.next_expiry().map(|end| end.since(now));
        let delay = first_look(
            self.subscription,
            checked.interval,
            self.context.fleet.size(),
        );
        settled.then(|| delay.min(expiry.unwrap_or(delay)))
    }

    /// The account that a deletion will work on.
    fn account(&self, read: &Dereferenced) -> Account {
        let environment = self.subscription.spec.environment;
        let live = credentials(self.subscription, read.credentials.as_ref()).ok();
        let credentials = live.or(owned(read).credentials);
        credentials.map_or_else(
            || Account {
                environment,
                api_key: crate::secrets::Fingerprint::of(self.key.to_string().as_bytes()),
            },
            |credentials| account(environment, &credentials),
        )
    }

    /// One pass at a time per account: a slow account must not fill the whole queue.
    fn turn(&self, account: Account) -> Result<Turn<'_>, Trouble> {
        let mut busy = self
            .context
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(account.clone()) {
            return Err(Trouble::Busy);
        }
        Ok(Turn {
            busy: &self.context.busy,
            account,
        })
    }

    async fn delete(
        &self,
        session: &mut Session,
        inputs: Inputs,
        read: &Dereferenced,
        vault: Arc<super::vault::Vault>,
    ) -> Result<Next, kube::Error> {
        let deletion = Deletion {
            context: self.context,
            key: self.key,
            subscription: self.subscription,
            read,
            vault,
        };
        match deletion.run().await? {
            Deleted::Done => {
                tracing::info!("its rules are gone; the object may go");
                session.deleted.clone_from(&self.subscription.metadata.uid);
                Ok(rest(session, inputs, None))
            }
            Deleted::Waits { findings, at_least } => {
                self.teller.say(&findings).await?;
                self.context.metrics.failed("deletion");
                session.last = Some(inputs);
                Ok(Next::Retry { at_least })
            }
        }
    }

    fn next(
        &self,
        session: &mut Session,
        inputs: Inputs,
        interval: Duration,
        outcome: &Outcome,
    ) -> Next {
        let Some(retry) = outcome.retry else {
            let delay = jittered(interval);
            let delay = outcome.again.map_or(delay, |again| again.min(delay));
            return rest(session, inputs, Some(delay));
        };
        self.context.metrics.failed(retry.reason);
        // The delay grows in the queue; until it is over only a change brings another pass.
        session.last = Some(inputs);
        Next::Retry {
            at_least: retry.at_least,
        }
    }
}

/// Nothing more until something changes, or after `delay`.
fn rest(session: &mut Session, inputs: Inputs, delay: Option<Duration>) -> Next {
    session.last = Some(inputs);
    delay.map_or(Next::WhenAsked, Next::After)
}

/// A pass' turn at an account.
struct Turn<'a> {
    busy: &'a Mutex<HashSet<Account>>,
    account: Account,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.account);
    }
}

/// Says of an object that it cannot be read, and why; nothing else can be done. It is looked at
/// again when it changes.
async fn undecodable(context: &Context, key: &Key, metadata: &ObjectMeta, why: &str) -> Next {
    let status = super::status::undecodable(metadata, why, context.now());
    match patch_status(&context.client, key, status).await {
        Ok(_) => Next::WhenAsked,
        Err(error) => {
            tracing::warn!(%error, "cannot say that an object cannot be read");
            Next::Retry {
                at_least: Duration::ZERO,
            }
        }
    }
}
