//! A store, a clock set by hand, and a provider that notes each read: a process that can be killed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType as Kind};
use bellhop::clock::{Clock, UnixMillis};
use bellhop::metrics::Metrics;
use bellhop::pipeline::{Pipeline, PipelineSettings};
use bellhop::provider::{Answer, Document, ListItem, Read, ReadError, Reads};
use bellhop::settings::FetchSettings;
use bellhop::state::State;
use bellhop::state::embedded::{Engine, Options};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use crate::state::{ManualClock, notification};

pub const HOUR: Duration = Duration::from_hours(1);
pub const SECOND: Duration = Duration::from_secs(1);

fn raw(id: &str) -> Box<RawValue> {
    RawValue::from_string(format!(r#"{{"id":"{id}","version":1}}"#)).unwrap()
}

/// Suppliers, each with a product, and any booking.
pub struct Provider {
    clock: Arc<ManualClock>,
    /// All reads, as text, and when they came.
    log: Mutex<Vec<(UnixMillis, String)>>,
    /// Those in its list: `a`, `b` and `c` at first.
    pub suppliers: Mutex<Vec<String>>,
    /// No answer to this read, as text, ever comes.
    pub hangs: Mutex<Option<String>>,
    /// What the next read is told to wait.
    pub patience: Mutex<Option<Duration>>,
}

impl Provider {
    fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            clock,
            log: Mutex::default(),
            suppliers: Mutex::new(["a", "b", "c"].map(str::to_owned).to_vec()),
            hangs: Mutex::default(),
            patience: Mutex::default(),
        }
    }

    /// All reads, as text, and when they came.
    pub fn log(&self) -> Vec<(UnixMillis, String)> {
        self.log.lock().unwrap().clone()
    }

    /// When this was first asked for.
    pub fn asked(&self, what: &str) -> Option<UnixMillis> {
        let log = self.log.lock().unwrap();
        log.iter()
            .find(|(_, one)| one == what)
            .map(|(when, _)| *when)
    }

    pub fn reads(&self, what: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|(_, one)| one == what).count()
    }

    fn items(ids: &[String]) -> Answer {
        let item = |id: &String| ListItem {
            id: id.clone(),
            data: raw(id),
        };
        Answer::Many(ids.iter().map(item).collect())
    }
}

#[async_trait]
impl Reads for Provider {
    async fn read(&self, read: &Read) -> Result<Answer, ReadError> {
        let what = match read {
            Read::Suppliers => "suppliers".to_owned(),
            Read::Products { supplier } => format!("products of {supplier}"),
            Read::Supplier { supplier } => supplier.clone(),
            Read::Product { supplier, product } => format!("{supplier}/{product}"),
            Read::Booking { booking } => format!("booking {booking}"),
            other => panic!("{other:?}"),
        };
        let now = self.clock.now();
        self.log.lock().unwrap().push((now, what.clone()));
        let hangs = self.hangs.lock().unwrap().as_ref() == Some(&what);
        if hangs {
            std::future::pending::<()>().await;
        }
        if let Some(wait) = self.patience.lock().unwrap().take() {
            return Err(ReadError::Retry {
                reason: "429".to_owned(),
                after: Some(wait),
            });
        }
        match read {
            Read::Suppliers => Ok(Self::items(&self.suppliers.lock().unwrap())),
            Read::Products { .. } => Ok(Self::items(&["p".to_owned()])),
            _ => Ok(Answer::One(Document {
                data: raw(&what),
                version: Some(1),
                retrieved: None,
                expires: None,
                empty: false,
            })),
        }
    }

    async fn reload_credentials(&self) -> bool {
        false
    }
}

/// A store that outlives the runs of a process, and its provider.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub provider: Arc<Provider>,
    pub state: Arc<dyn State>,
    kinds: Vec<Kind>,
    _folder: tempfile::TempDir,
}

/// A run of the process; dropped, it ends as by kill -9.
pub struct Run(JoinSet<()>);

impl World {
    pub fn new(kinds: &[Kind]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new();
        let options = Options::default();
        let engine = Engine::open(folder.path(), options, clock.clone(), &Metrics::new()).unwrap();
        Self {
            provider: Arc::new(Provider::new(clock.clone())),
            clock,
            state: Arc::new(engine),
            kinds: kinds.to_vec(),
            _folder: folder,
        }
    }

    pub fn pipeline(&self, requests_per_second: u32) -> Arc<Pipeline> {
        let settings = PipelineSettings {
            fetch: FetchSettings {
                requests_per_second,
                min_interval: SECOND,
                availability_horizon_days: 30,
                resync_interval: 24 * HOUR,
                removal_confirmation: SECOND,
                removal_guard_percent: 100,
            },
            subscribed: self.kinds.clone(),
            retain_bookings: HOUR,
        };
        Arc::new(Pipeline::new(
            settings,
            self.state.clone(),
            self.provider.clone(),
            self.clock.clone(),
            fastrand::u64(..),
            &Metrics::new(),
        ))
    }

    pub fn start(&self) -> Run {
        let pipeline = self.pipeline(100);
        let mut run = Run::of(&pipeline, 4);
        run.0.spawn(async move { pipeline.resync().await.unwrap() });
        run
    }

    /// Time goes on in steps, with some real time for what it wakes up.
    pub async fn pass(&self, time: Duration, step: Duration) {
        self.pass_until(self.clock.now().after(time), step).await;
    }

    pub async fn pass_until(&self, end: UnixMillis, step: Duration) {
        while self.clock.now() < end {
            self.clock.advance(step);
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    }

    /// The process notes that it is alive, every 20 s; then it is killed, without any time between.
    pub async fn kill(&self, run: Run) {
        self.clock.advance(20 * SECOND);
        tokio::time::sleep(Duration::from_millis(300)).await;
        run.kill().await;
    }

    /// Lets seconds go by until something holds, for a minute of real time.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        self.until_by(SECOND, what, holds).await;
    }

    /// The same in steps of another length.
    pub async fn until_by(&self, step: Duration, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_mins(1) {
            if holds() {
                return;
            }
            self.pass(step, step).await;
        }
        let log = self.provider.log();
        let newest = &log[log.len().saturating_sub(100)..];
        panic!("never happened: {what}; the newest reads: {newest:?}");
    }

    /// The receiver's part: a notification is on the disk.
    pub async fn accept(&self, key: &EntityKey, sum: u64) {
        let told = notification(key, sum, self.clock.now());
        self.state.accept(told).await.unwrap();
    }

    /// The list that each resync begins with was read so often.
    pub fn resyncs(&self) -> usize {
        self.provider.reads("suppliers")
    }
}

impl Run {
    /// Workers, and nothing that looks for work.
    pub fn of(pipeline: &Arc<Pipeline>, workers: usize) -> Self {
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let pipeline = pipeline.clone();
            tasks.spawn(async move { pipeline.work().await.unwrap() });
        }
        Self(tasks)
    }

    pub async fn kill(mut self) {
        self.0.shutdown().await;
    }
}
