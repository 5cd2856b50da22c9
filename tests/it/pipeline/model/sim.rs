//! The scheduler and the clock of the model: one thread, one seed, no real time.
//!
//! Owns: which ready task is polled next (the seed decides), when time passes (only when nothing
//! is ready), the steps of the wall clock, the request for a crash, and the trace. Everything that
//! happens is folded into a hash, so that two runs of a seed can be compared.
//!
//! Never here: a thread, a timer of the machine, a random number that the seed does not decide.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::clock::{Clock, Ticks, UnixMillis};

/// Noon of a day, so that a wall clock that steps by an hour stays in it.
pub const BASE: UnixMillis = UnixMillis(1_767_355_200_000);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whose task it is: a crash ends those of the process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    World,
    Process,
}

pub struct Sim {
    inner: Mutex<Inner>,
    ready: Arc<Mutex<BTreeSet<usize>>>,
}

struct Inner {
    ticks: u64,
    wall: i64,
    timers: BTreeMap<(u64, u64), Waker>,
    timer_ids: u64,
    random: fastrand::Rng,
    hash: u64,
    trace: Option<Vec<String>>,
    failure: Option<String>,
    crash: bool,
    /// Numbers of the durable writes around which the process dies.
    crash_writes: BTreeSet<u64>,
    writes: u64,
    calm: bool,
    /// Of the long pauses, one in so many is longer than a claim's lease; 0: none.
    long_pauses: u32,
    lease_ms: u64,
    spawned: Vec<(Owner, Task)>,
    tasks: BTreeMap<usize, (Owner, Option<Task>)>,
    next_task: usize,
    polls: u64,
}

impl Sim {
    pub fn new(seed: u64, record: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                ticks: 0,
                wall: 0,
                timers: BTreeMap::new(),
                timer_ids: 0,
                random: fastrand::Rng::with_seed(seed),
                hash: 0xcbf2_9ce4_8422_2325,
                trace: record.then(Vec::new),
                failure: None,
                crash: false,
                crash_writes: BTreeSet::new(),
                writes: 0,
                calm: false,
                long_pauses: 0,
                lease_ms: 0,
                spawned: Vec::new(),
                tasks: BTreeMap::new(),
                next_task: 0,
                polls: 0,
            }),
            ready: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A task may have panicked: that is a finding of the schedule, and told as one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number in `0..below`, decided by the seed.
    pub fn below(&self, below: u64) -> u64 {
        self.lock().random.u64(0..below.max(1))
    }

    /// True in `percent` of the cases.
    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn seed(&self) -> u64 {
        self.lock().random.u64(..)
    }

    pub fn step_wall(&self, by: i64) {
        self.lock().wall += by;
    }

    /// From now on: no long pauses, no crashes.
    pub fn calm(&self) {
        let mut inner = self.lock();
        inner.calm = true;
        inner.crash_writes.clear();
    }

    pub fn is_calm(&self) -> bool {
        self.lock().calm
    }

    pub fn pause_beyond_leases(&self, one_in: u32, lease_ms: u64) {
        let mut inner = self.lock();
        (inner.long_pauses, inner.lease_ms) = (one_in, lease_ms);
    }

    /// A time that is longer than a claim's lease, but not always.
    pub fn beyond_a_lease(&self) -> u64 {
        let lease_ms = self.lock().lease_ms;
        lease_ms * 2 / 3 + self.below(lease_ms)
    }

    pub fn crash_at_write(&self, number: u64) {
        self.lock().crash_writes.insert(number);
    }

    /// Counts a durable write that is about to be made; true when the process dies around it.
    pub fn next_write_kills(&self) -> bool {
        let mut inner = self.lock();
        inner.writes += 1;
        let number = inner.writes;
        inner.crash_writes.remove(&number)
    }

    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    pub fn crash(&self) {
        self.lock().crash = true;
    }

    pub fn take_crash(&self) -> bool {
        std::mem::take(&mut self.lock().crash)
    }

    /// Something went wrong: the first one counts.
    pub fn fail(&self, what: String) {
        let mut inner = self.lock();
        if let Some(trace) = &mut inner.trace {
            trace.push(format!("FAILURE: {what}"));
        }
        inner.failure.get_or_insert(what);
    }

    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Notes what happened, for the hash always, in words when they are recorded.
    pub fn note(&self, number: u64, words: impl FnOnce() -> String) {
        let mut inner = self.lock();
        let ticks = inner.ticks;
        inner.fold(ticks);
        inner.fold(number);
        if let Some(trace) = &mut inner.trace {
            let words = words();
            trace.push(format!("{:>10.3}  {words}", ticks as f64 / 1000.0));
        }
    }

    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    pub fn polls(&self) -> u64 {
        self.lock().polls
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.lock().trace.take().unwrap_or_default()
    }

    pub fn spawn(&self, owner: Owner, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().spawned.push((owner, Box::pin(task)));
    }

    /// Drops all tasks of the process.
    pub fn kill_process(&self) {
        self.kill(|owner| *owner == Owner::Process);
    }

    /// Drops all tasks: they hold what holds them.
    pub fn end(&self) {
        self.kill(|_| true);
    }

    fn kill(&self, condemned: impl Fn(&Owner) -> bool) {
        let mut inner = self.lock();
        let (spawned, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.spawned)
            .into_iter()
            .partition(|(owner, _)| condemned(owner));
        inner.spawned = kept;
        let (tasks, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut inner.tasks)
            .into_iter()
            .partition(|(_, (owner, _))| condemned(owner));
        inner.tasks = kept;
        // Dropped without the lock: their timers take themselves out.
        drop(inner);
        drop((spawned, tasks));
    }

    /// Polls one ready task; false when none is ready.
    pub fn poll_one(&self) -> bool {
        let (id, mut task) = {
            let mut inner = self.lock();
            for (owner, task) in std::mem::take(&mut inner.spawned) {
                let id = inner.next_task;
                inner.next_task += 1;
                inner.tasks.insert(id, (owner, Some(task)));
                self.ready.lock().unwrap().insert(id);
            }
            let mut ready = self.ready.lock().unwrap();
            let Some(id) = (!ready.is_empty()).then(|| {
                let at = inner.random.usize(0..ready.len());
                let id = *ready.iter().nth(at).unwrap();
                ready.remove(&id);
                id
            }) else {
                return false;
            };
            let Some(task) = inner.tasks.get_mut(&id).and_then(|(_, task)| task.take()) else {
                return true;
            };
            inner.polls += 1;
            inner.fold(id as u64);
            (id, task)
        };
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            ready: self.ready.clone(),
        }));
        let done = task
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        let mut inner = self.lock();
        if done {
            inner.tasks.remove(&id);
        } else if let Some((_, slot)) = inner.tasks.get_mut(&id) {
            *slot = Some(task);
        }
        true
    }

    /// Lets time pass until the next timer, but not beyond `limit`; false when it is at `limit`.
    pub fn pass_time(&self, limit: u64) -> bool {
        let due: Vec<Waker> = {
            let mut inner = self.lock();
            let next = inner.timers.keys().next().map_or(u64::MAX, |(due, _)| *due);
            if inner.ticks >= limit {
                return false;
            }
            inner.ticks = next.max(inner.ticks).min(limit);
            let later = inner.ticks + 1;
            let rest = inner.timers.split_off(&(later, 0));
            std::mem::replace(&mut inner.timers, rest)
                .into_values()
                .collect()
        };
        for waker in due {
            waker.wake();
        }
        true
    }

    /// Gives way to the other tasks `times` times.
    pub async fn give_way(&self, times: u64) {
        for _ in 0..times {
            let mut polled = false;
            std::future::poll_fn(|context| {
                if std::mem::replace(&mut polled, true) {
                    Poll::Ready(())
                } else {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            })
            .await;
        }
    }

    /// A pause of a task, as the machine's scheduler, disk and network make them.
    pub async fn pause(&self) {
        let (calm, long) = {
            let inner = self.lock();
            (inner.calm, inner.long_pauses)
        };
        let draw = self.below(100);
        match draw {
            0..45 => {}
            _ if calm || draw < 80 => self.give_way(1 + draw % 3).await,
            80..97 => self.sleep_ms(1 + self.below(300)).await,
            _ if long > 0 && self.below(u64::from(long)) == 0 => {
                self.sleep_ms(self.beyond_a_lease()).await;
            }
            _ => self.sleep_ms(300 + self.below(6_000)).await,
        }
    }

    pub async fn sleep_ms(&self, ms: u64) {
        self.sleep(Duration::from_millis(ms)).await;
    }
}

impl Inner {
    fn fold(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x0100_0000_01b3);
    }
}

struct TaskWaker {
    id: usize,
    ready: Arc<Mutex<BTreeSet<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().insert(self.id);
    }
}

struct Sleep<'a> {
    sim: &'a Sim,
    until: u64,
    timer: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.sim.lock();
        if inner.ticks >= self.until {
            return Poll::Ready(());
        }
        let id = self.timer.unwrap_or_else(|| {
            inner.timer_ids += 1;
            inner.timer_ids
        });
        inner
            .timers
            .insert((self.until, id), context.waker().clone());
        drop(inner);
        self.timer = Some(id);
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.timer {
            self.sim.lock().timers.remove(&(self.until, id));
        }
    }
}

#[async_trait]
impl Clock for Sim {
    fn now(&self) -> UnixMillis {
        let inner = self.lock();
        UnixMillis(BASE.0 + inner.ticks as i64 + inner.wall)
    }

    fn ticks(&self) -> Ticks {
        Ticks(self.lock().ticks)
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.ticks().after(duration).0;
        Sleep {
            sim: self,
            until,
            timer: None,
        }
        .await;
    }
}
