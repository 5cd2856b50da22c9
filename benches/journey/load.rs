//! The load: signed notifications over raw HTTP/1.1, as many connections as asked for.
//!
//! Owns: how requests are made (one prebuilt head, one body and signature per request) and how
//! latencies are counted. In the open loop a request's latency counts from when it was *due*, so
//! that a server that stalls cannot hide it. Never here: code of the receiver.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The rule key that the load signs with and the servers verify with.
pub const KEY: &str = "bench-security-key-0001";

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Where to.
    pub address: SocketAddr,
    /// How many at once.
    pub connections: usize,
    /// For how long.
    pub duration: Duration,
    /// Requests per second in all; `None`: as fast as answers come (closed loop).
    pub rate: Option<f64>,
    /// How many different entities the notifications name.
    pub entities: u64,
    /// Stop after this many requests, whatever the duration.
    pub at_most: Option<u64>,
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    /// Answers with status 200.
    pub ok: u64,
    /// All others.
    pub other: u64,
    /// From first to last.
    pub elapsed: Duration,
    /// Microseconds per answered request.
    pub latency: Histogram<u64>,
}

impl Answered {
    /// 200s per second.
    pub fn rate(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latency, in milliseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// The identifiers of entity number `index`: shaped like the provider's, the same in every process.
pub fn rate_ids(index: u64) -> [String; 3] {
    let id = |kind: u64, n: u64| format!("{kind:08x}-b3c1-4d2e-8f00-{n:012x}");
    [id(1, index / 100), id(2, index / 5), id(3, index)]
}

/// Sends until the time is over, on a runtime of this thread.
pub async fn run(load: Load) -> std::io::Result<Answered> {
    let start = Instant::now();
    let share = load.at_most.map(|total| total.div_ceil(load.connections as u64));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..load.connections {
        tasks.spawn_local(connection(load, number as u64, share, start));
    }
    let mut all = Answered { ok: 0, other: 0, elapsed: Duration::ZERO, latency: histogram() };
    while let Some(done) = tasks.join_next().await {
        let one = done.map_err(std::io::Error::other)??;
        all.ok += one.ok;
        all.other += one.other;
        all.latency.add(&one.latency).map_err(std::io::Error::other)?;
    }
    all.elapsed = start.elapsed();
    Ok(all)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("bounds are in order")
}

async fn connection(
    load: Load,
    number: u64,
    at_most: Option<u64>,
    start: Instant,
) -> std::io::Result<Answered> {
    let mut stream = TcpStream::connect(load.address).await?;
    stream.set_nodelay(true)?;
    let mut maker = Maker::new(number, load.entities);
    let mut answered = Answered { ok: 0, other: 0, elapsed: Duration::ZERO, latency: histogram() };
    let mut buffer = Vec::with_capacity(1024);
    let interval = load.rate.map(|rate| Duration::from_secs_f64(load.connections as f64 / rate));
    let mut due = start
        + interval.map_or(Duration::ZERO, |gap| {
            gap.mul_f64(number as f64 / load.connections as f64)
        });
    let end = start + load.duration;
    let mut sent = 0;
    while Instant::now() < end && at_most.is_none_or(|most| sent < most) {
        if let Some(gap) = interval {
            tokio::time::sleep_until(due.into()).await;
            due += gap;
        }
        let from = if let Some(gap) = interval { due - gap } else { Instant::now() };
        stream.write_all(maker.next()).await?;
        sent += 1;
        let status = read_answer(&mut stream, &mut buffer).await?;
        let micros = u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        answered.latency.saturating_record(micros);
        if status == 200 {
            answered.ok += 1;
        } else {
            answered.other += 1;
        }
    }
    Ok(answered)
}

/// Reads one answer and says its status. Answers here always carry `content-length`.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<u16> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(head) = find(buffer, b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length: usize = text
            .split("content-length:")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next())
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0);
        if buffer.len() >= head + 4 + length {
            return text.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::InvalidData, "no status line")
            });
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Makes requests, each with its own token and signature.
struct Maker {
    key: hmac::Key,
    connection: u64,
    count: u64,
    entities: u64,
    random: fastrand::Rng,
    request: Vec<u8>,
}

impl Maker {
    fn new(connection: u64, entities: u64) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()),
            connection,
            count: 0,
            entities,
            random: fastrand::Rng::with_seed(connection),
            request: Vec::with_capacity(1024),
        }
    }

    fn next(&mut self) -> &[u8] {
        use std::io::Write as _;
        self.count += 1;
        let timestamp =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let token = format!("{:x}-{:x}-{:x}", std::process::id(), self.connection, self.count);
        let sum = hex::encode(hmac::sign(&self.key, format!("{timestamp}{token}").as_bytes()));
        let [supplier, product, rate] = rate_ids(self.random.u64(0..self.entities));
        let body = format!(
            r#"{{"supplierID":"{supplier}","productID":"{product}","rateID":"{rate}","operation":"updated","signature":{{"sum":"{sum}","timestamp":{timestamp},"token":"{token}"}}}}"#
        );
        self.request.clear();
        write!(
            self.request,
            "POST /hooks/rate/0123456789 HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("writing to memory");
        &self.request
    }
}
