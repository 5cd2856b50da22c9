//! What a provider's answer means: from a claim and an answer to one settlement.
//!
//! Owns: the rules "no going back, no lost update" and "two signals for a removal"; what an
//! answer's age means is in [`age`]. Everything here is a function of claim, answer and time;
//! nothing waits and nothing is written.
//!
//! Never here: an outcome that leaves the mark behind without a due time, and a cleared mark
//! after a read that failed.

mod age;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use self::age::Age;
use super::canonical;
use super::memo::{Memo, Stamp};
use super::window;
use crate::api::NotificationType;
use crate::clock::{Ticks, UnixMillis};
use crate::planted::{Bug, planted};
use crate::provider::{Answer, Document, ListItem, ReadError, Window};
use crate::state::{
    ChangeKind, Claim, EventAttributes, MarkAfter, NewEvent, Outcome, Settlement, StoredEntity,
};

/// A removal that the guard holds back goes through after so long of agreement.
const GUARD_SPAN: Duration = Duration::from_hours(1);
/// How often a held-back removal is looked at again: doubling from here ...
const GUARD_FIRST: Duration = Duration::from_mins(1);
/// ... up to here.
const GUARD_LONGEST: Duration = Duration::from_mins(10);
/// First and longest wait after a failed read, before jitter.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_mins(5);
/// A `Retry-After` beyond this is not waited for.
const RETRY_AFTER_LONGEST: Duration = Duration::from_hours(1);
/// So often in a row may one entity alone be refused with 403 before it is given up.
const FORBIDDEN_ATTEMPTS: u32 = 5;
/// The shortest wait before another look, and what the provider's whole seconds leave open.
const SECOND: Duration = Duration::from_secs(1);

/// What a decision needs to know beside claim and answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Wall time at the start of the fetch.
    pub fetched: UnixMillis,
    /// Monotonic time at the start of the fetch.
    pub started: Ticks,
    /// This run, and monotonic time now.
    pub now: Stamp,
    /// The window that was asked for.
    pub window: Window,
    /// How far apart two 404s must be.
    pub removal_confirmation: Duration,
    /// How long a booking is kept after its last travel date.
    pub retain_bookings: Duration,
    /// Between 0 and 1, for jitter.
    pub jitter: f64,
}

/// A decision, and what it says about the entity.
#[derive(Debug)]
pub(super) struct Decision {
    pub settlement: Settlement,
    /// Why it is held or failed, in words for logs.
    pub reason: Option<String>,
}

/// Whether the guard lets a removal through: asked once both signals agree.
pub(super) trait Admit {
    fn admit(&mut self, first: Ticks) -> bool;
}

impl<F: FnMut(Ticks) -> bool> Admit for F {
    fn admit(&mut self, first: Ticks) -> bool {
        self(first)
    }
}

/// Decides what the answer means.
pub(super) fn decide(
    claim: &Claim,
    answer: &Result<Answer, ReadError>,
    context: &Context,
    admit: &mut dyn Admit,
) -> Decision {
    let judge = Judge { claim, context };
    match answer {
        Ok(Answer::One(document)) => judge.document(document),
        Ok(Answer::Many(items)) if items.is_empty() => judge.gone(true, admit),
        Ok(Answer::Many(items)) => judge.binding(items),
        Err(ReadError::Gone { .. }) => judge.gone(false, admit),
        Err(ReadError::Retry { reason, after }) => judge.failed(reason, *after),
        Err(ReadError::Unauthorized { status: 403 }) if claim.attempts >= FORBIDDEN_ATTEMPTS => {
            judge.dead_letter("the provider answers 403 to this read while it answers others")
        }
        Err(error @ ReadError::Unauthorized { .. }) => judge.failed(&error.to_string(), None),
        Err(ReadError::Refused { reason }) => judge.dead_letter(reason),
    }
}

/// The notes on a claim's entity.
fn memo_of(claim: &Claim) -> Memo {
    claim
        .entity
        .as_ref()
        .map(|entity| Memo::decode(&entity.memo))
        .unwrap_or_default()
}

/// What consumers have of a claim's entity.
pub(super) fn live(claim: &Claim) -> Option<&StoredEntity> {
    claim.entity.as_ref().filter(|entity| entity.live)
}

struct Judge<'a> {
    claim: &'a Claim,
    context: &'a Context,
}

impl Judge<'_> {
    fn settlement(&self, outcome: Outcome, mark: MarkAfter) -> Settlement {
        Settlement {
            outcome,
            fetched: self.context.fetched,
            started: self.context.started,
            confirms: false,
            event: None,
            memo: None,
            mark,
            children: Vec::new(),
            dead_letter: None,
            forget_after: None,
            forget: false,
        }
    }

    /// Nothing is published yet: look again.
    fn held(&self, memo: &Memo, again: Duration, reason: &str) -> Decision {
        Decision {
            settlement: Settlement {
                memo: Some(memo.encode()),
                ..self.settlement(Outcome::Held, MarkAfter::Again(again))
            },
            reason: Some(reason.to_owned()),
        }
    }

    fn failed(&self, reason: &str, after: Option<Duration>) -> Decision {
        let grown = doubled(RETRY_FIRST, self.claim.attempts, RETRY_LONGEST);
        let jittered = grown.mul_f64(0.5 + self.context.jitter / 2.0);
        let wait = after
            .unwrap_or_default()
            .min(RETRY_AFTER_LONGEST)
            .max(jittered);
        let mark = if planted(Bug::FailureClearsMark) {
            MarkAfter::Clear
        } else {
            MarkAfter::Retry(wait)
        };
        Decision {
            settlement: self.settlement(Outcome::Failed, mark),
            reason: Some(reason.to_owned()),
        }
    }

    fn dead_letter(&self, reason: &str) -> Decision {
        Decision {
            settlement: Settlement {
                dead_letter: Some(reason.to_owned()),
                ..self.settlement(Outcome::DeadLetter, MarkAfter::Clear)
            },
            reason: Some(reason.to_owned()),
        }
    }

    /// 404, 410, or a product without rates: a signal that it is gone.
    fn gone(&self, empty_list: bool, admit: &mut dyn Admit) -> Decision {
        let Some(entity) = live(self.claim) else {
            // What was created a moment ago may not be there yet.
            let again = self.soon_after_its_notification();
            let forget = self
                .claim
                .entity
                .as_ref()
                .is_none_or(|entity| entity.sequence.is_none());
            return Decision {
                settlement: Settlement {
                    confirms: again.is_none(),
                    forget,
                    memo: (!forget).then(|| Memo::default().encode()),
                    ..self.settlement(Outcome::Absent, after(again))
                },
                reason: None,
            };
        };
        let mut memo = Memo::decode(&entity.memo);
        let first = memo
            .gone
            .filter(|first| first.run == self.context.now.run)
            .unwrap_or(self.context.now);
        memo.gone = Some(first);
        let elapsed = self.before_this_read(first);
        let two_signals = self.claim.removed
            || (elapsed >= self.context.removal_confirmation && first != self.context.now)
            || planted(Bug::SingleSignalRemoves)
            || (empty_list && planted(Bug::ListRemoves));
        if !two_signals {
            let wait = self
                .context
                .removal_confirmation
                .saturating_sub(self.since(first));
            return self.held(&memo, wait.max(SECOND), "one signal of a removal");
        }
        if elapsed < GUARD_SPAN && !admit.admit(Ticks(first.ticks)) {
            // As long again as it was held until now.
            let wait = elapsed
                .clamp(GUARD_FIRST, GUARD_LONGEST)
                .min(GUARD_SPAN.saturating_sub(elapsed))
                .max(SECOND);
            return self.held(&memo, wait, "the removal guard holds it back");
        }
        // It may have come back a moment ago: the signal of the removal is that of an older
        // notification then, and the answer one from a cache.
        let again = self.soon_after_its_notification();
        Decision {
            settlement: Settlement {
                confirms: again.is_none(),
                event: Some(NewEvent {
                    change: ChangeKind::Removed,
                    data: None,
                    attributes: self.attributes(None, None),
                }),
                memo: Some(Memo::default().encode()),
                ..self.settlement(Outcome::Removed, after(again))
            },
            reason: None,
        }
    }

    fn binding(&self, items: &[ListItem]) -> Decision {
        let mut memo = memo_of(self.claim);
        memo.gone = None;
        let rates: BTreeSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
        let ids = self.claim.key.ids();
        let data = serde_json::to_string(&Binding {
            supplier: ids.first().copied().unwrap_or_default(),
            product: ids.get(1).copied().unwrap_or_default(),
            rates,
        })
        .expect("strings only");
        let same = self.stored_text().is_some_and(|stored| stored == data);
        let again = self.soon_after_its_notification();
        self.believed(memo, &data, same, None, again)
    }

    fn document(&self, document: &Document) -> Decision {
        let mut memo = memo_of(self.claim);
        memo.gone = None;
        if let Some(wait) = self.lower_version(&mut memo, document) {
            return self.held(&memo, wait, "a lower version than the published one");
        }
        let (same, entered) = self.compare(document, &memo);
        let mut unconfirmed = false;
        match self.older_than_published(&mut memo, document) {
            Age::Fine => {}
            Age::Wait(wait) => return self.held(&memo, wait, "retrieved before the published one"),
            Age::WaitedLongEnough => unconfirmed = true,
        }
        if let Some(wait) = self.suddenly_empty(&mut memo, document, same) {
            return self.held(&memo, wait, "empty, to be confirmed by a second read");
        }
        let mut again = None;
        if !unconfirmed {
            match self.before_its_mark(&mut memo, document) {
                Age::Fine => {}
                Age::Wait(wait) => again = Some(wait),
                Age::WaitedLongEnough => unconfirmed = true,
            }
        }
        if document.retrieved.is_none() {
            again = self.soon_after_its_notification();
        }
        memo.version = document.version.or(memo.version);
        if let Some((_, retrieved)) = &document.retrieved {
            memo.retrieved = Some(*retrieved);
        }
        if entered && !same {
            memo.entered = Some(window::day_of(self.context.fetched));
        }
        if again.is_none() {
            memo.cached = None;
        }
        let mut decision = self.believed(memo, document.data.get(), same, Some(document), again);
        if unconfirmed {
            decision.settlement.outcome = Outcome::Unconfirmed;
            decision.settlement.confirms = false;
        }
        if self.claim.key.kind() == NotificationType::Booking {
            // Personal data does not stay, also where no travel date can be read.
            let last = last_travel_date(document.data.get()).unwrap_or(self.context.fetched);
            decision.settlement.forget_after = Some(last.after(self.context.retain_bookings));
        }
        decision
    }

    /// How long before this read began `then` was: zero when it was not. What two reads agree on
    /// held for so long, however long the answers were on their way.
    fn before_this_read(&self, then: Stamp) -> Duration {
        let began = Stamp {
            ticks: self.context.started.0,
            ..self.context.now
        };
        then.elapsed(began).unwrap_or_default()
    }

    /// How long ago `then` was.
    fn since(&self, then: Stamp) -> Duration {
        then.elapsed(self.context.now).unwrap_or_default()
    }

    /// The answer is the state: publish it unless it is the same as before.
    fn believed(
        &self,
        memo: Memo,
        data: &str,
        same: bool,
        document: Option<&Document>,
        again: Option<Duration>,
    ) -> Decision {
        let outcome = match again {
            Some(_) => Outcome::Provisional,
            None if same => Outcome::Unchanged,
            None => Outcome::Changed,
        };
        let event = (!same).then(|| NewEvent {
            change: if live(self.claim).is_some() {
                ChangeKind::Updated
            } else {
                ChangeKind::Created
            },
            data: Some(data.as_bytes().to_vec()),
            attributes: self.attributes(
                super::reads::has_window(self.claim.key.kind()).then_some(self.context.window),
                document
                    .and_then(|document| document.retrieved.as_ref())
                    .map(|(text, _)| text.clone()),
            ),
        });
        Decision {
            settlement: Settlement {
                confirms: again.is_none(),
                event,
                memo: Some(memo.encode()),
                ..self.settlement(outcome, after(again))
            },
            reason: None,
        }
    }

    fn attributes(&self, window: Option<Window>, retrieved: Option<String>) -> EventAttributes {
        EventAttributes {
            notified: self.claim.notified,
            window_start: window.map(|window| window.start.to_string()),
            window_end: window.map(|window| window.end.to_string()),
            retrieved,
            traceparent: self.claim.traceparent.clone(),
        }
    }

    fn stored_text(&self) -> Option<&str> {
        let data = live(self.claim)?.data.as_deref()?;
        std::str::from_utf8(data).ok()
    }

    /// Whether it says the same as what consumers have, and whether the only difference is a day
    /// that has newly come into the window.
    fn compare(&self, document: &Document, memo: &Memo) -> (bool, bool) {
        let kind = self.claim.key.kind();
        let (Some(stored), Some(entity)) = (self.stored_text(), live(self.claim)) else {
            return (false, false);
        };
        let new = document.data.get();
        if !super::reads::has_window(kind) {
            return (canonical::same(stored, new), false);
        }
        let today = window::day_of(self.context.fetched);
        let Some(old) = window::stored(&entity.attributes) else {
            return (canonical::same(stored, new), false);
        };
        let same = window::shared(old, self.context.window, today)
            .is_none_or(|shared| canonical::same_on(kind, stored, new, shared));
        let entered =
            same && memo.entered != Some(today) && canonical::has_after(kind, new, old.end);
        (same && !entered, entered)
    }
}

/// The mark goes when nothing has to be asked again.
fn after(again: Option<Duration>) -> MarkAfter {
    again.map_or(MarkAfter::Clear, MarkAfter::Again)
}

/// `first * 2^times`, at most `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first
        .saturating_mul(2_u32.saturating_pow(times.min(20)))
        .min(longest)
}

#[derive(serde::Serialize)]
struct Binding<'a> {
    #[serde(rename = "supplierID")]
    supplier: &'a str,
    #[serde(rename = "productID")]
    product: &'a str,
    #[serde(rename = "rateIDs")]
    rates: BTreeSet<&'a str>,
}

/// The newest `startTime` of a booking's items; `None` when none can be read.
fn last_travel_date(json: &str) -> Option<UnixMillis> {
    let booking: serde_json::Value = serde_json::from_str(json).ok()?;
    booking
        .get("items")?
        .as_array()?
        .iter()
        .filter_map(|item| UnixMillis::parse_rfc3339(item.get("startTime")?.as_str()?))
        .max()
}
