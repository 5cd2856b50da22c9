//! The durability contract, and the trait that every state engine fulfils.
//!
//! Owns: where marks, entities, outbox, cursors, dead letters and the journal live, and what may
//! be believed of them after a crash.
//!
//! # The contract
//!
//! 1. **Durable means synced.** When [`State::accept`], [`State::mark`], [`State::settle`],
//!    [`State::commit_sink`] or [`State::put_fact`] returns `Ok`, what it did survives `kill -9` and
//!    power loss. When it returns `Err`, it did nothing, or the engine has failed for good
//!    ([`StateError::Failed`]) and the process must end and open the store again.
//! 2. **A mark has a generation.** Every new notification for an entity raises it. A claim carries
//!    the generation it saw; [`State::settle`] clears the mark only if that is still the newest.
//!    Otherwise the mark stays, and the entity is claimed again.
//! 3. **One claim per entity**, handed out oldest due first, with a lease. A claim that was taken
//!    over settles as [`Settled::Stale`] and changes nothing.
//! 4. **Settle is one step.** New state, revision, outbox event, child marks, dead letter, memo and
//!    the consumed claim become durable together or not at all. *Every* outcome is settled, also
//!    "unchanged" and "failed": a claim is never just dropped (its lease would have to run out).
//! 5. **Revisions rise.** `max(previous + 1, Unix ms at the start of the fetch)`, over removal,
//!    retention and restart; never a lower one for an entity, also when the wall clock steps back.
//! 6. **Sequences rise by commit order.** A reader that saw sequence *n* will never later find a
//!    new event at or below *n*.
//! 7. **Nothing damaged is read as truth.** A row that fails its checksum is an error
//!    ([`StateError::Failed`]), not a value.
//! 8. **Space for marks is reserved.** When the store is full, [`State::settle`] may answer
//!    [`StateError::Full`] while [`State::accept`] still works; the mark stays.
//!
//! Never here: a network call, a decision about what a provider's answer means, the name of
//! anything in Kubernetes.

pub mod embedded;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::api::{EntityKey, NotificationType};
use crate::clock::{Ticks, UnixMillis};

/// Random id of a store, made with it: 16 hex digits. Part of event ids and cursors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch(pub String);

/// Position of an event in a store. Starts at 1; 0 is "before the first".
pub type Sequence = u64;

/// Per-entity number that only rises.
pub type Revision = u64;

/// Why the engine could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// No space (disk or quota). Nothing was done; the same call may work later.
    #[error("the store is full: {0}")]
    Full(String),
    /// Busy or locked for the moment. Nothing was done; the same call may work later.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// I/O error or damage. The engine refuses all further work until the process starts anew.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// A verified notification, as the receiver hands it over.
#[derive(Debug, Clone)]
pub struct Notification {
    /// The rule it came in on.
    pub rule: NotificationType,
    /// What it names; `None` when it is authentic but of unknown shape (kept as a dead letter).
    pub key: Option<EntityKey>,
    /// What it says happened: `removed` is one of the two signals of a removal.
    pub removed: bool,
    /// The verified sum, raw digest bytes (16 or 32).
    pub sum: Vec<u8>,
    /// `signature.timestamp`, as milliseconds.
    pub timestamp: UnixMillis,
    /// When the request was read.
    pub received: UnixMillis,
    /// The verified raw body; stored only when `key` is `None`.
    pub body: bytes::Bytes,
    /// W3C trace context of the request, if it carried one.
    pub traceparent: Option<String>,
}

/// What [`State::accept`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// A mark was made or renewed.
    Marked,
    /// Same sum, same identifiers: already durable.
    Duplicate,
    /// Same sum, other identifiers: marked all the same.
    SignatureReused,
    /// Older, by more than the skew, than the mark behind a confirmed fetch: costs nothing.
    Stale,
    /// Authentic, unknown shape: kept as a dead letter.
    DeadLetter,
    /// One signature with more than 100 different bodies: refused (401), nothing stored.
    Replayed,
    /// The backlog is at its bound: refused (429), nothing stored.
    BacklogFull,
}

/// Who asked for a read. Notifications go before resync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkClass {
    /// A notification is behind it, or a consumer's refresh, or a parent's commit.
    Notification,
    /// Only the resync is behind it.
    Resync,
}

/// A mark that no notification of the entity is behind: resync, refresh, a child of a binding.
/// Carries no time of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMark {
    /// The entity to look at.
    pub key: EntityKey,
    /// Its place in the queue.
    pub class: MarkClass,
    /// When it became known that something changed: the parent's [`Claim::noticed`], or when a
    /// consumer asked; `None` for the resync.
    pub noticed: Option<Ticks>,
    /// Somebody waits for it: a mark that was left with [`MarkAfter::Again`] is due now, as after
    /// a notification.
    pub urgent: bool,
}

/// The right to work on one entity.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Names this claim: no two claims of an engine share it, also across restarts of the engine
    /// within one process.
    pub id: u64,
    /// The entity.
    pub key: EntityKey,
    /// The mark's generation when it was claimed.
    pub generation: u64,
    /// `min(timestamp, acceptance)` of the newest notification behind the mark; `None` when only
    /// resync, refresh or a parent is behind it.
    pub marked: Option<UnixMillis>,
    /// Newest `signature.timestamp` behind the mark (CloudEvents extension `notifiedtime`).
    pub notified: Option<UnixMillis>,
    /// When the newest notification behind the mark, or behind its parent's, came in, or the store
    /// was opened since then; `None` when only the resync is behind it.
    pub noticed: Option<Ticks>,
    /// When the oldest notification or request behind the mark came in.
    pub since: UnixMillis,
    /// Whether a `removed` notification is behind the mark.
    pub removed: bool,
    /// Its place in the queue.
    pub class: MarkClass,
    /// How many settlements in a row were [`MarkAfter::Retry`].
    pub attempts: u32,
    /// Trace context of the newest notification behind it.
    pub traceparent: Option<String>,
    /// What is stored of the entity; `None` when nothing was ever stored.
    pub entity: Option<StoredEntity>,
}

/// What the store holds of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEntity {
    /// Its newest revision.
    pub revision: Revision,
    /// Its newest event's place; `None` when it was never published.
    pub sequence: Option<Sequence>,
    /// Whether it exists for consumers.
    pub live: bool,
    /// The newest published data, byte for byte; `None` when removed or never published.
    pub data: Option<Vec<u8>>,
    /// The attributes of the newest event.
    pub attributes: EventAttributes,
    /// The pipeline's own notes, opaque here.
    pub memo: Vec<u8>,
}

/// What an event says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// First known, or known again after a removal.
    Created,
    /// Other than before.
    Updated,
    /// Gone; no data.
    Removed,
}

/// Extension attributes of an event that depend on the read.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct EventAttributes {
    /// `notifiedtime`, absent on resync.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub notified: Option<UnixMillis>,
    /// `windowstart`, `YYYY-MM-DD`: first day the data covers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window_start: Option<String>,
    /// `windowend`, `YYYY-MM-DD`: last day the data covers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window_end: Option<String>,
    /// `retrieved` of an availability, as the provider wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retrieved: Option<String>,
    /// W3C `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}

/// A committed change, as sinks and the feed see it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Its place.
    pub sequence: Sequence,
    /// The entity.
    pub key: EntityKey,
    /// The entity's revision.
    pub revision: Revision,
    /// What happened.
    pub change: ChangeKind,
    /// When it was fetched (start of the read).
    pub time: UnixMillis,
    /// The provider's JSON, byte for byte; `None` for removals.
    pub data: Option<Vec<u8>>,
    /// Extensions.
    pub attributes: EventAttributes,
}

/// A change to publish, made by the pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What happened. `Created` and `Updated` are corrected by the engine to what it knows.
    pub change: ChangeKind,
    /// The data; `None` exactly for removals.
    pub data: Option<Vec<u8>>,
    /// Extensions.
    pub attributes: EventAttributes,
}

/// How a fetch ended, for the journal and for metrics: a small fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Published something new.
    Changed,
    /// Same as before.
    Unchanged,
    /// Published although the provider's cache may be old; will be read again.
    Provisional,
    /// Settled without the provider ever confirming that it is newer than the mark.
    Unconfirmed,
    /// Published a removal.
    Removed,
    /// Gone, and never published: nothing left behind.
    Absent,
    /// Held for a second signal (removal, lower version, empty answer, guard).
    Held,
    /// Will be tried again.
    Failed,
    /// Gave up: a dead letter.
    DeadLetter,
}

impl Outcome {
    /// The metric label and journal word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Provisional => "provisional",
            Self::Unconfirmed => "unconfirmed",
            Self::Removed => "removed",
            Self::Absent => "absent",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// How the mark goes on after a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkAfter {
    /// Cleared, up to the claimed generation.
    Clear,
    /// Kept, to be claimed again after this long. A newer notification does not bring it forward:
    /// the provider asked for patience, or is not well. Counts as an attempt.
    Retry(Duration),
    /// Kept, to be claimed again after this long, or as soon as a newer notification or an urgent
    /// mark comes in.
    /// The read itself was answered: attempts are counted from zero again.
    Again(Duration),
}

/// What one fetch came to. See the contract, point 4.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// For journal and metrics.
    pub outcome: Outcome,
    /// Wall time at the start of the fetch: becomes the revision and the event's `time`.
    pub fetched: UnixMillis,
    /// Monotonic time at the start of the fetch: `minInterval` counts from here.
    pub started: Ticks,
    /// Whether the read confirms the mark: `claim.marked` becomes the entity's confirmed time,
    /// against which later notifications are judged stale.
    pub confirms: bool,
    /// The new event, if there is something to publish.
    pub event: Option<NewEvent>,
    /// The pipeline's notes from now on; `None` leaves them.
    pub memo: Option<Vec<u8>>,
    /// What becomes of the mark.
    pub mark: MarkAfter,
    /// Entities to look at next, durable with this commit.
    pub children: Vec<NewMark>,
    /// Why it was given up, with [`Outcome::DeadLetter`].
    pub dead_letter: Option<String>,
    /// When the entity must be forgotten (bookings); `None` leaves what was set before.
    pub forget_after: Option<UnixMillis>,
    /// Forget the entity: nothing of it stays (a 404 for one that was never published).
    pub forget: bool,
}

/// What [`State::settle`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Committed; the event's sequence and revision if there was one.
    Committed(Option<(Sequence, Revision)>),
    /// The claim was taken over or its store reopened: nothing was changed.
    Stale,
}

/// A page of the newest events of live entities.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityPage {
    /// In key order.
    pub items: Vec<StoredEvent>,
    /// Where to go on; `None` at the end.
    pub next: Option<EntityKey>,
}

/// Why events cannot be given from a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsGone {
    /// A removal after the position is no longer kept.
    #[error("a removal after this cursor is no longer kept")]
    Expired,
    /// The position is ahead of the head.
    #[error("this cursor is ahead of the newest event")]
    AheadOfHead,
}

/// One event that a sink could not take yet, or not at all, kept apart so that the cursor moves on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The event.
    pub sequence: Sequence,
    /// Its entity: later events of it are parked behind it.
    pub key: EntityKey,
    /// Attempts that counted so far.
    pub attempts: u32,
}

/// Where a sink stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkPosition {
    /// Every event up to here is delivered, parked or buried.
    pub cursor: Sequence,
    /// Apart from these, in sequence order.
    pub parked: Vec<Parked>,
}

/// One step of a sink, durable as a whole.
#[derive(Debug, Clone, Default)]
pub struct SinkCommit {
    /// The new cursor; never lower than before.
    pub cursor: Sequence,
    /// Events to park, or whose attempts changed.
    pub park: Vec<Parked>,
    /// Parked events that are delivered, superseded or buried now.
    pub release: Vec<Sequence>,
    /// Events that gave up, with the reason: each takes the place of older ones of its entity.
    pub bury: Vec<(Parked, String)>,
    /// Delivered (key, revision): resolves older dead letters of that entity at this sink.
    pub delivered: Vec<(EntityKey, Revision)>,
}

/// Where a dead letter comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterSource {
    /// An authentic notification of unknown shape.
    Notification,
    /// A fetch that gave up.
    Fetch,
    /// A sink, by name.
    Sink(String),
}

/// An item that gave up, kept with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it.
    pub id: u64,
    /// Where from.
    pub source: DeadLetterSource,
    /// About what, if known.
    pub key: Option<EntityKey>,
    /// The event a sink refused.
    pub sequence: Option<Sequence>,
    /// Its revision.
    pub revision: Option<Revision>,
    /// Why.
    pub reason: String,
    /// Since when.
    pub time: UnixMillis,
}

/// Counters for `/status`, metrics and conditions. Read from memory: cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entities with a mark.
    pub marks: u64,
    /// Of these, behind which only the resync is.
    pub resync_marks: u64,
    /// Claims handed out and not settled.
    pub claims: u64,
    /// When the oldest mark came in.
    pub oldest_mark: Option<UnixMillis>,
    /// Entities that exist for consumers.
    pub live_entities: u64,
    /// Newest event.
    pub head: Sequence,
    /// Dead letters kept, by source: notification, fetch, sink.
    pub dead_letters: [u64; 3],
    /// Newest journal number.
    pub journal: u64,
    /// When the newest authentic notification came in.
    pub last_notification: Option<UnixMillis>,
    /// Bytes in use of [`Stats::bytes_limit`].
    pub bytes: u64,
    /// The quota.
    pub bytes_limit: u64,
    /// Only the reserve for marks is left: nothing is published until there is room again.
    pub full: bool,
    /// As many entities wait as may: notifications for further ones are refused.
    pub backlog_full: bool,
}

/// A state engine. See the module documentation for what each call promises.
#[async_trait]
pub trait State: Send + Sync + 'static {
    /// The store's epoch.
    fn epoch(&self) -> &Epoch;

    /// Makes a notification durable. The heart of the product: when this returns `Ok` with
    /// anything but `Replayed` or `BacklogFull`, a 200 may be sent.
    async fn accept(&self, notification: Notification) -> Result<Accepted, StateError>;

    /// Makes marks durable (resync, refresh). A mark that exists keeps its time; its class is
    /// raised if the new one goes first; its generation rises.
    async fn mark(&self, marks: Vec<NewMark>) -> Result<(), StateError>;

    /// Hands out the due entity that is oldest within the preferred class, else within the other.
    async fn claim(&self, prefer: MarkClass) -> Result<Option<Claim>, StateError>;

    /// Returns when [`State::claim`] may have something: at once, after a new mark, or when the
    /// next mark falls due. May return early; never late.
    async fn claimable(&self);

    /// Consumes a claim.
    async fn settle(&self, claim: &Claim, settlement: Settlement) -> Result<Settled, StateError>;

    /// The head of the events, for anyone who waits for new ones.
    fn head(&self) -> watch::Receiver<Sequence>;

    /// Newest events of live entities after `after` in key order, at most `limit`.
    async fn list(
        &self,
        kind: Option<NotificationType>,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Result<EntityPage, StateError>;

    /// Live entities of a type whose first identifiers are `above`, in key order; at most 10,000.
    async fn known(
        &self,
        kind: NotificationType,
        above: &[&str],
    ) -> Result<Vec<EntityKey>, StateError>;

    /// The newest event of one entity (a removal included while it is kept).
    async fn entity(&self, key: &EntityKey) -> Result<Option<StoredEvent>, StateError>;

    /// Kept events after `after`, at most `limit` and at most `bytes` of data (but at least one).
    async fn events(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Result<Result<Vec<StoredEvent>, EventsGone>, StateError>;

    /// As [`State::events`], for a reader that can do without the removals that are no longer kept:
    /// one that holds nothing yet, or was told that it may hold too much.
    async fn kept(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, StateError>;

    /// One event by its place; `None` when it is no longer kept.
    async fn event(&self, sequence: Sequence) -> Result<Option<StoredEvent>, StateError>;

    /// Oldest position from which [`State::events`] is complete as to removals.
    async fn oldest(&self) -> Result<Sequence, StateError>;

    /// Where a sink stands; a new sink starts before the oldest kept event.
    async fn sink(&self, name: &str) -> Result<SinkPosition, StateError>;

    /// Moves a sink.
    async fn commit_sink(&self, name: &str, commit: SinkCommit) -> Result<(), StateError>;

    /// Dead letters, oldest first, after `after`.
    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, StateError>;

    /// Takes a dead letter up again: a fetch is marked, a sink's event parked as due (the entity's
    /// newest revision unless `exact`), a notification of unknown shape only dropped.
    /// `false` when there is none of that id.
    async fn replay(&self, id: u64, exact: bool) -> Result<bool, StateError>;

    /// A small fact that must survive (resync progress, "MD5 is over for this key").
    async fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, StateError>;

    /// Writes, or with `None` removes, a fact.
    async fn put_fact(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), StateError>;

    /// Counters.
    fn stats(&self) -> Stats;
}
