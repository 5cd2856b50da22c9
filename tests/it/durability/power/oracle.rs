//! What a store must and must not hold, from what its process had asked and been answered.
//!
//! Knows the contract in `src/state.rs`, and nothing of how it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellhop::clock::Clock;
use bellhop::metrics::Metrics;
use bellhop::state::embedded::{Engine, Options};
use bellhop::state::{Claim, MarkClass, Settled, State, StoredEvent};

use super::workload::{Note, Step, child, data, parked};
use crate::state::{ManualClock, booking, publish};

/// A question and its answer, as places in the notes.
#[derive(Debug, Clone, Copy)]
struct Call {
    asked: usize,
    answered: Option<usize>,
}

#[derive(Debug, Clone)]
struct Work {
    key: String,
    claim: Call,
    step: Option<(Step, Call)>,
    place: Option<(u64, u64)>,
}

/// Everything that was said up to the power cut.
#[derive(Debug, Default)]
pub struct Said {
    epoch: Option<String>,
    /// What leaves a mark on a key: notifications, and settlements that mark a child.
    marks: BTreeMap<String, Vec<Call>>,
    accepts: BTreeMap<u64, (String, Call)>,
    unknown: BTreeMap<u64, Call>,
    claiming: BTreeMap<u64, usize>,
    works: BTreeMap<u64, Work>,
    sink: (u64, u64),
    fact: (u64, u64),
    notes: usize,
}

impl Said {
    pub fn hear(&mut self, note: &Note) {
        let at = self.notes;
        self.notes += 1;
        let asked = Call {
            asked: at,
            answered: None,
        };
        match note.clone() {
            Note::Opened { epoch } => self.epoch = Some(epoch),
            Note::Accept { n, key } => drop(self.accepts.insert(n, (key, asked))),
            Note::Accepted { n } => self.accepts.get_mut(&n).unwrap().1.answered = Some(at),
            Note::Unknown { n } => drop(self.unknown.insert(n, asked)),
            Note::Buried { n } => self.unknown.get_mut(&n).unwrap().answered = Some(at),
            Note::Claiming { c } => drop(self.claiming.insert(c, at)),
            Note::Claimed { c, key } => {
                let claim = Call {
                    asked: self.claiming[&c],
                    answered: Some(at),
                };
                let work = Work {
                    key,
                    claim,
                    step: None,
                    place: None,
                };
                self.works.insert(c, work);
            }
            Note::Settle { c, step } => self.works.get_mut(&c).unwrap().step = Some((step, asked)),
            Note::Settled { c, place } => {
                let work = self.works.get_mut(&c).unwrap();
                work.step.as_mut().unwrap().1.answered = Some(at);
                work.place = place;
            }
            Note::Sink { j } => self.sink.1 = j,
            Note::SinkMoved { j } => self.sink.0 = j,
            Note::Fact { j } => self.fact.1 = j,
            Note::FactKept { j } => self.fact.0 = j,
        }
    }

    /// Opens the store in `folder` and compares. What is wrong, in words.
    pub async fn compare(mut self, folder: &Path) -> Vec<String> {
        // Months before the record: the clock of a machine that lost its power may do that.
        let clock = ManualClock::new();
        let options = Options {
            min_interval: Duration::ZERO,
            ..Options::default()
        };
        let dynamic = Arc::clone(&clock) as Arc<dyn Clock>;
        let engine = match Engine::open(folder, options, dynamic, &Metrics::new()) {
            Ok(engine) => engine,
            Err(error) => return vec![format!("it does not open: {error}")],
        };
        clock.advance(Duration::from_hours(24));
        let mut wrong = Vec::new();
        if self
            .epoch
            .as_ref()
            .is_some_and(|epoch| *epoch != engine.epoch().0)
        {
            wrong.push("another store than before".to_owned());
        }
        let events = engine.events(0, 10_000, usize::MAX).await.unwrap().unwrap();
        self.events(&events, &mut wrong);
        self.newest(&engine, &events, &mut wrong).await;
        self.rest(&engine, &mut wrong).await;
        let claims = claims(&engine).await;
        self.marks(&claims, &mut wrong);
        for claim in &claims {
            memo_fits(claim, &events, &mut wrong);
        }
        revision_rises(&engine, &clock, &claims, &mut wrong).await;
        wrong
    }

    /// Every answered event is there as it was; whatever else is there was asked for. A settlement
    /// that was not answered counts as answered from here on if its event is there, and as never
    /// asked if not: nothing of it may be there then.
    fn events(&mut self, events: &[StoredEvent], wrong: &mut Vec<String>) {
        let mut revisions: BTreeMap<&str, u64> = BTreeMap::new();
        let mut found: BTreeMap<u64, &StoredEvent> = BTreeMap::new();
        for (expected, event) in (1..).zip(events) {
            if event.sequence != expected {
                wrong.push(format!("event {expected} is missing"));
                return;
            }
            let before = revisions.insert(event.key.as_str(), event.revision);
            if before >= Some(event.revision) {
                wrong.push(format!(
                    "{} has revision {} after {before:?}",
                    event.key, event.revision
                ));
            }
            let json: serde_json::Value =
                serde_json::from_slice(event.data.as_deref().unwrap_or(b"null"))
                    .unwrap_or_default();
            if let Some(c) = json["c"].as_u64()
                && found.insert(c, event).is_some()
            {
                wrong.push(format!("settlement {c} is there twice"));
            }
        }
        if found.len() != events.len() {
            wrong.push("an event that nobody asked for".to_owned());
        }
        let end = self.notes;
        for (c, work) in &mut self.works {
            let Some((Step::Publish { size }, call)) = work.step else {
                continue;
            };
            match (found.remove(c), call.answered) {
                (Some(event), _) => {
                    let same = event.data.as_deref() == Some(data(*c, size).as_bytes())
                        && event.key.as_str() == work.key;
                    let place = Some((event.sequence, event.revision));
                    if !same || work.place.is_some_and(|said| Some(said) != place) {
                        wrong.push(format!("settlement {c} is not as it was answered"));
                    }
                    work.step.as_mut().unwrap().1.answered.get_or_insert(end);
                }
                (None, Some(_)) => {
                    wrong.push(format!("settlement {c} was answered, its event is lost"));
                }
                (None, None) => work.step = None,
            }
        }
        if let Some(c) = found.keys().next() {
            wrong.push(format!(
                "event of settlement {c}, which was never asked for"
            ));
        }
    }

    /// List and single reads agree with the events.
    async fn newest(&self, engine: &Engine, events: &[StoredEvent], wrong: &mut Vec<String>) {
        let newest: BTreeMap<&str, &StoredEvent> = events
            .iter()
            .map(|event| (event.key.as_str(), event))
            .collect();
        let page = engine.list(None, None, 10_000).await.unwrap();
        let listed = page.items.iter().map(|event| (event.key.as_str(), event));
        if page.next.is_none() && !listed.eq(newest.iter().map(|(key, event)| (*key, *event))) {
            wrong.push("the list is not what the events say".to_owned());
        }
        for event in newest.values().take(5) {
            if engine.entity(&event.key).await.unwrap().as_ref() != Some(*event) {
                wrong.push(format!("{} is not what its newest event says", event.key));
            }
        }
    }

    /// Journal, dead letters, sink and fact lie between what was answered and what was asked.
    async fn rest(&self, engine: &Engine, wrong: &mut Vec<String>) {
        let mut between = |what: &str, found: u64, answered: u64, asked: u64| {
            if !(answered..=asked).contains(&found) {
                wrong.push(format!(
                    "{what}: {found}, {answered} answered, {asked} asked"
                ));
            }
        };
        let answered = |call: &Call| call.answered.is_some();
        let accepted = self
            .accepts
            .values()
            .filter(|(_, call)| answered(call))
            .count();
        let buried = self.unknown.values().filter(|call| answered(call)).count();
        let (asked, unknown) = (self.accepts.len(), self.unknown.len());
        let stats = engine.stats();
        between(
            "journal",
            stats.journal,
            (accepted + buried) as u64,
            (asked + unknown) as u64,
        );
        between(
            "dead letters",
            stats.dead_letters[0],
            buried as u64,
            unknown as u64,
        );
        let sink = engine.sink("sink").await.unwrap();
        between("sink", sink.cursor, self.sink.0, self.sink.1);
        let fact = engine.fact("fact").await.unwrap();
        let fact = fact.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        between("fact", fact, self.fact.0, self.fact.1);
        if sink.parked != parked(sink.cursor) {
            wrong.push(format!(
                "sink at {}: half of a step: {:?}",
                sink.cursor, sink.parked
            ));
        }
        let letters = engine.dead_letters(0, 10_000).await.unwrap();
        let counted: u64 = stats.dead_letters.iter().sum();
        if letters.len() as u64 != counted {
            wrong.push(format!("{} dead letters, {counted} counted", letters.len()));
        }
    }

    /// A mark that was answered and surely not consumed is there; one that was surely consumed, or
    /// never asked for, is not.
    fn marks(&mut self, claims: &[Claim], wrong: &mut Vec<String>) {
        for (key, call) in self.accepts.values() {
            self.marks.entry(key.clone()).or_default().push(*call);
        }
        for (c, work) in &self.works {
            if let Some((step, call)) = work.step
                && step.publishes()
            {
                self.marks
                    .entry(child(*c).to_string())
                    .or_default()
                    .push(call);
            }
        }
        let found: BTreeSet<&str> = claims.iter().map(|claim| claim.key.as_str()).collect();
        for key in &found {
            if !self.marks.contains_key(*key) {
                wrong.push(format!("{key} has a mark that nobody made"));
            }
        }
        for (key, calls) in &self.marks {
            let cleared: Vec<(Call, Call)> = self
                .works
                .values()
                .filter(|work| work.key == *key)
                .filter_map(|work| work.step.map(|(step, call)| (work.claim, step, call)))
                .filter(|(_, step, _)| step.clears())
                .map(|(claim, _, call)| (claim, call))
                .collect();
            let perhaps = |mark: &Call| {
                cleared
                    .iter()
                    .any(|(claim, _)| claim.answered > Some(mark.asked))
            };
            let surely = |mark: &Call| {
                mark.answered.is_some_and(|made| {
                    cleared
                        .iter()
                        .any(|(claim, call)| call.answered.is_some() && claim.asked > made)
                })
            };
            let must = calls
                .iter()
                .any(|mark| mark.answered.is_some() && !perhaps(mark));
            let must_not = calls.iter().all(surely);
            if must && !found.contains(key.as_str()) {
                wrong.push(format!("the mark of {key} was answered and is lost"));
            }
            if must_not && found.contains(key.as_str()) {
                wrong.push(format!("the mark of {key} was consumed and is back"));
            }
        }
    }
}

/// Takes every mark there is.
async fn claims(engine: &Engine) -> Vec<Claim> {
    let mut claims = Vec::new();
    while let Some(claim) = engine.claim(MarkClass::Notification).await.unwrap() {
        claims.push(claim);
    }
    claims
}

/// What the pipeline noted belongs to the newest event: they were written in one step.
fn memo_fits(claim: &Claim, events: &[StoredEvent], wrong: &mut Vec<String>) {
    let newest = events.iter().rev().find(|event| event.key == claim.key);
    let (Some(entity), Some(event)) = (&claim.entity, newest) else {
        if newest.is_some() {
            wrong.push(format!("{} has events and no entity", claim.key));
        }
        return;
    };
    let json: serde_json::Value = serde_json::from_slice(event.data.as_deref().unwrap()).unwrap();
    let c = json["c"].as_u64().unwrap();
    if entity.revision != event.revision || entity.memo != c.to_le_bytes() {
        wrong.push(format!(
            "the entity {} is not of its newest event",
            claim.key
        ));
    }
}

/// The next revision is higher than the last, although the clock is months behind.
async fn revision_rises(
    engine: &Engine,
    clock: &ManualClock,
    claims: &[Claim],
    wrong: &mut Vec<String>,
) {
    let published = |claim: &&Claim| {
        claim
            .entity
            .as_ref()
            .is_some_and(|entity| entity.revision > 0)
    };
    let Some(claim) = claims.iter().find(published) else {
        return;
    };
    let before = claim.entity.as_ref().unwrap().revision;
    let settled = engine.settle(claim, publish(clock, "{}")).await.unwrap();
    match settled {
        Settled::Committed(Some((_, revision))) if revision > before => {}
        other => wrong.push(format!("{}: {other:?} after revision {before}", claim.key)),
    }
    if engine
        .accept(crate::state::notification(
            &booking("after"),
            1,
            clock.now(),
        ))
        .await
        .is_err()
    {
        wrong.push("it takes no notification".to_owned());
    }
}
