//! The open connections of one port, and who has to go when there are too many.
//!
//! Owns: how many there are, what each is doing as far as the others care, and the lane beyond the
//! limit. A connection on which somebody still sends (nothing, half a head, half a body) has to
//! give way to a new one, whoever has been at it longest first: keeping a port full costs an
//! attacker as many new connections as it has places, over and over, while a sender that only
//! needs a moment gets it. One whose request is being worked on never has to.
//!
//! Never here: a new connection that is turned away without an answer; more connections than the
//! limit and the lane.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Connections beyond the limit that are told to come back later.
const LANE: usize = 128;

/// That all connections are busy is said at most this often.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// One open connection, as the others see it.
pub(super) struct Peer {
    /// Requests whose answer has not been given out whole.
    requests: AtomicUsize,
    /// The body of its request is still coming in.
    receiving: AtomicBool,
    /// The turn of its last activity.
    last: AtomicU64,
    turns: Arc<AtomicU64>,
    /// Whether a `content-length` line was read since the last answer.
    pub length_seen: Arc<AtomicBool>,
    /// What was written last has not gone out: the other side does not read.
    pub blocked: Arc<AtomicBool>,
    /// It is to end, after the request it is in.
    pub close: CancellationToken,
    /// It had to give way: what it is still sending has come too slowly.
    pub evicted: CancellationToken,
    /// It is beyond the limit: its request is not even looked at.
    pub beyond: bool,
}

impl Peer {
    /// Whether its request is being worked on; until [`Busy`] is dropped.
    pub fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether something waits to be written. No reason to stay when others want its place: not to
    /// read answers costs an attacker nothing.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Whether it may be closed in favour of others: it is its sender that we wait for.
    fn may_go(&self) -> bool {
        !self.is_busy() || self.receiving.load(Ordering::Relaxed)
    }

    fn go(&self) {
        self.close.cancel();
        self.evicted.cancel();
    }

    fn acts(&self) {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        self.last.store(turn, Ordering::Relaxed);
    }

    /// A request's head is here; `receiving`: its body is not.
    pub fn begin(self: &Arc<Self>, receiving: bool) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.receiving.store(receiving, Ordering::Relaxed);
        self.acts();
        Busy(Arc::clone(self))
    }

    /// Its request is here as a whole, or nobody wants the rest.
    pub fn received(&self) {
        self.receiving.store(false, Ordering::Relaxed);
    }
}

/// A request being answered, until nearly all of the answer is written.
pub(super) struct Busy(Arc<Peer>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.received();
        self.0.acts();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Open {
    /// Within the limit.
    places: Vec<Arc<Peer>>,
    /// Beyond it, oldest first.
    lane: Vec<Arc<Peer>>,
    warned: Option<Instant>,
}

/// All of them.
pub(super) struct Peers {
    limit: usize,
    closing: CancellationToken,
    /// Rises with each admission and each request: the age of connections.
    turns: Arc<AtomicU64>,
    open: Mutex<Open>,
}

/// A connection's place among the open ones; given back when dropped.
pub(super) struct Admitted {
    peers: Arc<Peers>,
    pub peer: Arc<Peer>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.peers.lock();
        let Open { places, lane, .. } = &mut *open;
        let among = if self.peer.beyond { lane } else { places };
        if let Some(at) = among.iter().position(|peer| Arc::ptr_eq(peer, &self.peer)) {
            // The lane stays in order.
            if self.peer.beyond {
                among.remove(at);
            } else {
                among.swap_remove(at);
            }
        }
    }
}

impl Peers {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            closing: CancellationToken::new(),
            turns: Arc::default(),
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection: a free one, that of one that has to go, or one in the lane.
    pub fn admit(self: &Arc<Self>) -> Admitted {
        let mut open = self.lock();
        let beyond = open.places.len() >= self.limit && self.make_room(&mut open.places) == 0;
        let peer = Arc::new(Peer {
            requests: AtomicUsize::new(0),
            receiving: AtomicBool::new(false),
            last: AtomicU64::new(0),
            turns: Arc::clone(&self.turns),
            length_seen: Arc::default(),
            blocked: Arc::default(),
            close: self.closing.child_token(),
            evicted: CancellationToken::new(),
            beyond,
        });
        peer.acts();
        if beyond {
            if open.lane.len() >= LANE {
                open.lane.remove(0).go();
            }
            open.lane.push(Arc::clone(&peer));
            if open.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                open.warned = Some(Instant::now());
                tracing::warn!(
                    connections = self.limit,
                    "all connections are busy; further ones are told to try again"
                );
            }
        } else {
            open.places.push(Arc::clone(&peer));
        }
        Admitted {
            peers: Arc::clone(self),
            peer,
        }
    }

    /// Closes connections that may go; gives how many.
    pub fn evict(&self) -> usize {
        self.make_room(&mut self.lock().places)
    }

    /// Closes the sixteenth part of the connections, as far as they may go (so that a flood does
    /// not cost a search for each), longest without activity first.
    fn make_room(&self, places: &mut Vec<Arc<Peer>>) -> usize {
        let (mut may_go, busy): (Vec<_>, Vec<_>) = std::mem::take(places)
            .into_iter()
            .partition(|peer| peer.may_go());
        let count = (self.limit / 16).max(1).min(may_go.len());
        if count > 0 {
            may_go.select_nth_unstable_by_key(count - 1, |peer| peer.last.load(Ordering::Relaxed));
        }
        *places = busy;
        places.extend(may_go.split_off(count));
        for peer in &may_go {
            peer.go();
        }
        count
    }

    /// Asks every connection to end after the request it is in.
    pub fn close_all(&self) {
        self.closing.cancel();
    }
}
