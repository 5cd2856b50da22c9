//! The load: signed notifications over raw HTTP/1.1, as many connections as asked for.
//!
//! Owns: how requests are made (one prebuilt head, one body and signature per request) and how
//! latencies are counted. In the open loop a request's latency counts from when it was *due*, so
//! that a server that stalls cannot hide it. Never here: code of the receiver.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::answered::{Answered, histogram};

/// The rule key that the load signs with and the servers verify with.
pub const KEY: &str = "bench-security-key-0001";

/// Which entities the notifications name.
#[derive(Debug, Clone, Copy)]
pub enum Names {
    /// Any of the first so many.
    Random(u64),
    /// One after the other from the first number on, and around after the second number of them.
    Each { from: u64, of: u64 },
}

/// Told of each notification: the entity's number and when it was due.
pub type Told = Rc<dyn Fn(u64, Instant)>;

/// What to send.
#[derive(Clone)]
pub struct Load {
    /// Where to.
    pub address: SocketAddr,
    /// How many at once.
    pub connections: usize,
    /// For how long.
    pub duration: Duration,
    /// Requests per second in all; `None`: as fast as answers come (closed loop).
    pub rate: Option<f64>,
    /// Which entities.
    pub names: Names,
    /// Stop after this many requests, whatever the duration.
    pub at_most: Option<u64>,
    /// Who wants to know of each.
    pub told: Option<Told>,
}

/// What one connection got.
struct Got {
    ok: u64,
    other: u64,
    latency: Histogram<u64>,
}

/// The identifiers of entity number `index`: shaped like the provider's, the same in every process.
pub fn rate_ids(index: u64) -> [String; 3] {
    let id = |kind: u64, n: u64| format!("{kind:08x}-b3c1-4d2e-8f00-{n:012x}");
    [id(1, index / 100), id(2, index / 5), id(3, index)]
}

/// One request about entity number `index`.
pub fn request(index: u64) -> Vec<u8> {
    let mut maker = Maker::new(
        1,
        Names::Each {
            from: index,
            of: u64::MAX,
        },
        0,
    );
    maker.next();
    maker.request
}

/// Sends until the time is over, on a runtime of this thread.
pub async fn run(load: Load) -> std::io::Result<Answered> {
    let start = Instant::now();
    let share = load
        .at_most
        .map(|total| total.div_ceil(load.connections as u64));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..load.connections {
        tasks.spawn_local(connection(load.clone(), number as u64, share, start));
    }
    let mut all = Got {
        ok: 0,
        other: 0,
        latency: histogram(),
    };
    while let Some(done) = tasks.join_next().await {
        let one = done.map_err(std::io::Error::other)??;
        all.ok += one.ok;
        all.other += one.other;
        all.latency
            .add(&one.latency)
            .map_err(std::io::Error::other)?;
    }
    Ok(Answered::new(
        all.ok,
        all.other,
        start.elapsed(),
        &all.latency,
    ))
}

async fn connection(
    load: Load,
    number: u64,
    at_most: Option<u64>,
    start: Instant,
) -> std::io::Result<Got> {
    let mut stream = TcpStream::connect(load.address).await?;
    stream.set_nodelay(true)?;
    let mut maker = Maker::new(load.connections as u64, load.names, number);
    let mut answered = Got {
        ok: 0,
        other: 0,
        latency: histogram(),
    };
    let mut buffer = Vec::with_capacity(1024);
    let interval = load
        .rate
        .map(|rate| Duration::from_secs_f64(load.connections as f64 / rate));
    let mut due = start
        + interval.map_or(Duration::ZERO, |gap| {
            gap.mul_f64(number as f64 / load.connections as f64)
        });
    let end = start + load.duration;
    let mut sent = 0;
    while Instant::now() < end && at_most.is_none_or(|most| sent < most) {
        let from = match interval {
            None => Instant::now(),
            Some(gap) => {
                let at = due;
                due += gap;
                tokio::time::sleep_until(at.into()).await;
                at
            }
        };
        let index = maker.next();
        if let Some(told) = &load.told {
            told(index, from);
        }
        stream.write_all(&maker.request).await?;
        sent += 1;
        let status = read_answer(&mut stream, &mut buffer).await?;
        let micros = u64::try_from(from.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
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
        let Some(head) = find(buffer, b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length: usize = text
            .split("content-length:")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next())
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0);
        if buffer.len() >= head + 4 + length {
            return text
                .get(9..12)
                .and_then(|status| status.parse().ok())
                .ok_or_else(|| {
                    std::io::Error::new(std::io::ErrorKind::InvalidData, "no status line")
                });
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Makes requests, each with its own token and signature.
struct Maker {
    key: hmac::Key,
    connection: u64,
    connections: u64,
    count: u64,
    names: Names,
    random: fastrand::Rng,
    request: Vec<u8>,
}

impl Maker {
    fn new(connections: u64, names: Names, connection: u64) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()),
            connection,
            connections,
            count: 0,
            names,
            // Another choice of entities in each process: its number is as good as any.
            random: fastrand::Rng::with_seed(connection ^ (u64::from(std::process::id()) << 32)),
            request: Vec::with_capacity(1024),
        }
    }

    /// Makes the next request; says which entity it names.
    fn next(&mut self) -> u64 {
        use std::io::Write as _;
        let index = match self.names {
            Names::Random(count) => self.random.u64(0..count),
            Names::Each { from, of } => {
                from + (self.count * self.connections + self.connection) % of
            }
        };
        self.count += 1;
        let timestamp = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let token = format!(
            "{:x}-{:x}-{:x}",
            std::process::id(),
            self.connection,
            self.count
        );
        let sum = hex::encode(hmac::sign(
            &self.key,
            format!("{timestamp}{token}").as_bytes(),
        ));
        let [supplier, product, rate] = rate_ids(index);
        let body = format!(
            r#"{{"supplierID":"{supplier}","productID":"{product}","rateID":"{rate}","operation":"updated","signature":{{"sum":"{sum}","timestamp":{timestamp},"token":"{token}"}}}}"#
        );
        self.request.clear();
        write!(
            self.request,
            "POST /hooks/rate HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("writing to memory");
        index
    }
}
