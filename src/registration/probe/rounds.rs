//! The probes of many subscriptions, each in its time.
//!
//! Owns: who is due, what is believed of each URL ([`Track`]), and the tasks of the probes. Whoever
//! asks gets what is known now; whoever listens hears of what changed.
//!
//! Never here: a wait of a caller for a probe; a task that outlives [`Rounds::run`]; more tasks than
//! probes at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::track::Track;
use super::{AT_ONCE, Prober};
use crate::api::Reason;
use crate::clock::{Clock, Ticks};
use crate::secrets::Secret;

/// When a probe was not sent, because one of the subscription's former life is still under way.
const BLOCKED: Duration = Duration::from_secs(1);

/// What is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The URL of one of the subscription's rules.
    pub rule_url: String,
    /// Its probe key.
    pub key: Secret,
}

struct Entry {
    subject: Subject,
    track: Track,
    stands: Stands,
    /// Rises when the subject changes: what was asked before says nothing any more.
    turn: u64,
    /// Somebody asked for a probe while one was under way, which may have been too early.
    again: bool,
    /// Somebody asked, and wants to know what the next probe finds.
    asked: bool,
}

/// Where a subscription's next probe is.
enum Stands {
    /// In the queue.
    Due(Ticks),
    /// Under way.
    Sent {
        /// In this turn.
        turn: u64,
        /// Because somebody asked.
        asked: bool,
    },
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    queue: BTreeSet<(Ticks, String)>,
    turns: u64,
}

/// A probe to send, or one that has ended.
struct Turn {
    uid: String,
    turn: u64,
}

/// See the module.
pub struct Rounds {
    prober: Prober,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    woken: Notify,
}

impl Rounds {
    /// Nobody's rounds yet.
    pub fn new(prober: Prober, clock: Arc<dyn Clock>) -> Self {
        Self {
            prober,
            clock,
            inner: Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// Has a subscription's URL probed from now on, and says what is believed of it. Nothing
    /// changes for one that is probed already; another URL or key is probed at once. `status` is
    /// what the resource says, for the first time after a start.
    pub fn want(&self, uid: &str, subject: Subject, status: Option<Reason>) -> Reason {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        inner.turns += 1;
        let turn = inner.turns;
        match inner.entries.get_mut(uid) {
            Some(entry) if entry.subject == subject => return entry.track.shown(),
            Some(entry) => {
                entry.subject = subject;
                entry.track = Track::default();
                entry.turn = turn;
            }
            None => {
                let track = Track::resumed(status);
                let due = now.after(track.first(&mut fastrand::Rng::new()));
                let entry = Entry {
                    subject,
                    track,
                    stands: Stands::Due(due),
                    turn,
                    again: false,
                    asked: false,
                };
                inner.entries.insert(uid.to_owned(), entry);
                inner.queue.insert((due, uid.to_owned()));
                self.woken.notify_one();
                return track.shown();
            }
        }
        inner.bring_forward(uid, now);
        self.woken.notify_one();
        Reason::ProbePending
    }

    /// Has it probed at once, and what is found is believed. What is believed now stays until then.
    pub fn again(&self, uid: &str) {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(uid) {
            entry.asked = true;
        }
        inner.bring_forward(uid, now);
        drop(inner);
        self.woken.notify_one();
    }

    /// Has it probed no more.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.lock();
        let entry = inner.entries.remove(uid);
        if let Some(Stands::Due(due)) = entry.map(|entry| entry.stands) {
            inner.queue.remove(&(due, uid.to_owned()));
        }
    }

    /// What is believed of a subscription's URL; `None` for one that is not probed.
    pub fn shown(&self, uid: &str) -> Option<Reason> {
        self.lock()
            .entries
            .get(uid)
            .map(|entry| entry.track.shown())
    }

    /// Sends the probes until `token` is cancelled, and tells `changed` whose URL is believed to
    /// be something else. A vital task.
    ///
    /// # Errors
    /// A probe's task panicked.
    pub async fn run(
        self: Arc<Self>,
        changed: impl Fn(&str),
        token: CancellationToken,
    ) -> Result<(), String> {
        let mut sent = JoinSet::new();
        loop {
            let room = AT_ONCE - sent.len();
            for (turn, subject) in self.start(room) {
                let rounds = self.clone();
                sent.spawn(async move {
                    let prober = &rounds.prober;
                    let found = prober
                        .probe(&turn.uid, &subject.rule_url, &subject.key)
                        .await;
                    (turn, found)
                });
            }
            let next = self.next().filter(|_| sent.len() < AT_ONCE);
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = self.woken.notified() => {}
                Some(ended) = sent.join_next() => {
                    let (turn, found) = ended.map_err(|error| format!("a probe: {error}"))?;
                    if self.ended(&turn, found) {
                        changed(&turn.uid);
                    }
                }
                () = self.clock.sleep(next.unwrap_or_default()), if next.is_some() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `room` of those that are due, which are under way from now on.
    fn start(&self, room: usize) -> Vec<(Turn, Subject)> {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        let mut started = Vec::new();
        while started.len() < room
            && let Some((due, _)) = inner.queue.first()
            && *due <= now
            && let Some((_, uid)) = inner.queue.pop_first()
        {
            if let Some(entry) = inner.entries.get_mut(&uid) {
                let turn = entry.turn;
                let asked = std::mem::take(&mut entry.asked);
                entry.stands = Stands::Sent { turn, asked };
                entry.again = false;
                started.push((Turn { uid, turn }, entry.subject.clone()));
            }
        }
        started
    }

    /// How long until the next one is due.
    fn next(&self) -> Option<Duration> {
        let inner = self.lock();
        let (due, _) = inner.queue.first()?;
        Some(due.since(self.clock.ticks()))
    }

    /// Takes in what a probe found. Says whether something else is believed now.
    fn ended(&self, ended: &Turn, found: Option<Reason>) -> bool {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(&ended.uid) else {
            return false;
        };
        let asked = match entry.stands {
            Stands::Sent { turn, asked } if turn == ended.turn => asked,
            // Of a former life; the present one has its own place.
            _ => return false,
        };
        if entry.turn != ended.turn {
            // It asked about what was before.
            inner.set_due(&ended.uid, now);
            return false;
        }
        let before = entry.track.shown();
        let delay = if let Some(found) = found {
            if asked {
                entry.track.believe(found);
            } else {
                entry.track.record(found);
            }
            entry.track.next(&mut fastrand::Rng::new())
        } else {
            entry.asked |= asked;
            BLOCKED
        };
        let differs = entry.track.shown() != before;
        let delay = if entry.again { Duration::ZERO } else { delay };
        inner.set_due(&ended.uid, now.after(delay));
        differs
    }
}

impl Inner {
    /// Into the queue; must not be in it.
    fn set_due(&mut self, uid: &str, due: Ticks) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.stands = Stands::Due(due);
            self.queue.insert((due, uid.to_owned()));
        }
    }

    /// To the head of the queue; one that is under way is followed by another.
    fn bring_forward(&mut self, uid: &str, now: Ticks) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        match entry.stands {
            Stands::Due(due) => {
                self.queue.remove(&(due, uid.to_owned()));
                self.set_due(uid, now);
            }
            Stands::Sent { .. } => entry.again = true,
        }
    }
}
