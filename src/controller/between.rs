//! Between two looks at the provider: what probes and receivers have found is said, and what was
//! done to the receivers' objects is mended.
//!
//! Owns: whether there is any of that, and doing it; the pace of numbers that move by themselves.
//!
//! Never here: a question to the provider; a change of the spec (that is a whole pass).

use std::time::Duration;

use super::Context;
use super::fleet::Key;
use super::queue::Next;
use super::receivers::{Found, Heard, Numbers};
use super::reconcile::{Trouble, Work};
use super::session::Session;
use super::status::Findings;
use super::tend::{Task, Tended};
use crate::api::{Condition, Reason};

/// Whether something is to be done for, or said of, its receivers.
pub fn receivers_news(context: &Context, key: &Key, session: &Session) -> bool {
    let Some(tender) = context.tender.as_ref().filter(|_| session.tended) else {
        return false;
    };
    let Heard::Found(found) = tender.receivers.heard(key) else {
        return tender.objects.moved(key);
    };
    // Nothing else would say the last of them, when they stay as they are.
    let numbers = found.numbers.as_ref();
    let unsaid = numbers.is_some_and(|numbers| session.pace.lacks(numbers));
    tender.receivers.leave_unsaid(key, unsaid);
    tender.objects.moved(key)
        || tender.rollouts.may_begin(key)
        || session
            .found
            .as_ref()
            .is_none_or(|said| !said.is_like(&found))
        || may_write(context, session, &found).is_some()
}

/// The numbers that may be written now.
fn may_write(context: &Context, session: &Session, found: &Found) -> Option<Numbers> {
    let numbers = found.numbers.as_ref()?;
    session.pace.allows(numbers, context.clock.ticks())
}

impl Work<'_> {
    /// Nothing has changed but what a probe has found, what the receivers say, or what somebody has
    /// done to their objects: the provider is not asked.
    pub async fn touch_up(
        &self,
        session: &mut Session,
        reachable: Option<Reason>,
    ) -> Result<Next, Trouble> {
        let mut next = Next::AsBefore;
        let mut findings = Findings::default();
        if let Some(found) = reachable {
            findings = findings.with(Condition::of(found));
        }
        if let Some(tender) = self.context.tender(self.subscription)
            && (tender.objects.moved(self.key) || tender.rollouts.may_begin(self.key))
            && self.tend(session).await? == Some(Tended::Refused)
        {
            next = Next::Retry {
                at_least: Duration::ZERO,
            };
        }
        if session.tended {
            findings = findings.with_heard(self.heard());
        }
        self.say(session, findings).await?;
        session.looked = reachable.or(session.looked);
        Ok(next)
    }

    pub fn heard(&self) -> Heard {
        self.context.heard(self.key, self.subscription)
    }

    /// Says it, with the numbers that may be written now.
    pub async fn say(
        &self,
        session: &mut Session,
        mut findings: Findings,
    ) -> Result<(), kube::Error> {
        let found = match &findings.heard {
            Some(Heard::Found(found)) => Some(found.clone()),
            _ => None,
        };
        if let Some(found) = &found {
            findings.numbers = may_write(self.context, session, found);
        }
        self.teller.say(&findings).await?;
        if let Some(numbers) = findings.numbers {
            session.pace.wrote(numbers, self.context.clock.ticks());
        }
        session.found = found.or_else(|| session.found.take());
        Ok(())
    }

    /// The objects of its receivers, by what the last pass knew.
    async fn tend(&self, session: &Session) -> Result<Option<Tended>, kube::Error> {
        match self.task(session).await {
            Some(task) => task.run().await.map(Some),
            None => Ok(None),
        }
    }

    async fn task<'a>(&'a self, session: &'a Session) -> Option<Task<'a>> {
        let vault = session.vault.as_ref()?;
        Some(Task {
            client: &self.context.client,
            tender: self.context.tender(self.subscription)?,
            key: self.key,
            subscription: self.subscription,
            admin_token: vault.content().await.admin_token?,
            gate: session.gate.as_deref()?,
        })
    }

    /// After a start, when nothing is to be done at the provider: the receivers' objects are made
    /// what this operator wants them to be, if the one before did not leave them so. `false`: a whole
    /// pass has to do it.
    pub async fn take_over(&self, session: &mut Session) -> Result<bool, kube::Error> {
        if self.context.tender(self.subscription).is_none() {
            return Ok(true);
        }
        let Some(task) = self.task(session).await else {
            return Ok(false);
        };
        session.tended = task.stand().await? || task.run().await? != Tended::Refused;
        Ok(session.tended)
    }
}
