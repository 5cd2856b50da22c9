//! An HTTP server that does exactly what a script says, down to the byte, and remembers what it
//! was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What to do with a request.
pub enum Act {
    /// These bytes, and the connection stays open for more.
    Keep(String),
    /// These bytes, and the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, and then nothing for ever.
    Hang(Vec<u8>),
    /// A chunked 200 of this many bytes, as far as anybody takes them.
    Flood(u64),
}

/// An answer with a JSON body and extra header lines (each ending in CRLF).
pub fn answer(status: u16, headers: &str, body: &str) -> Act {
    Act::Keep(format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A plain answer.
pub fn json(status: u16, body: &str) -> Act {
    answer(status, "Content-Type: application/json\r\n", body)
}

type Script = Arc<dyn Fn(usize, &Seen) -> Act + Send + Sync>;

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicU64,
    flooded: AtomicU64,
}

pub struct Server {
    pub address: SocketAddr,
    record: Arc<Record>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// The script gets the number of the request, from 0, and the request.
    pub async fn start(script: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let script: Script = Arc::new(script);
        let shared = Arc::clone(&record);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (record, script) = (Arc::clone(&shared), Arc::clone(&script));
                connections.spawn(async move {
                    // An error is a client that went away.
                    let _ = serve(stream, &record, &script).await;
                });
            }
        });
        Self {
            address,
            record,
            task,
        }
    }

    /// Always the same answer.
    pub async fn always(status: u16, body: &str) -> Self {
        let body = body.to_owned();
        Self::start(move |_, _| json(status, &body)).await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.record.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    pub fn connections(&self) -> u64 {
        self.record.connections.load(Ordering::SeqCst)
    }

    pub fn flooded(&self) -> u64 {
        self.record.flooded.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, record: &Record, script: &Script) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(seen) = request(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        let number = {
            let mut all = record.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        match script(number, &seen) {
            Act::Keep(text) => stream.write_all(text.as_bytes()).await?,
            Act::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Act::Hang(bytes) => {
                stream.write_all(&bytes).await?;
                tokio::time::sleep(Duration::from_mins(10)).await;
            }
            Act::Flood(bytes) => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head).await?;
                let piece = 16_384_u64;
                let chunk = format!("{piece:x}\r\n{}\r\n", " ".repeat(16_384));
                for _ in 0..bytes / piece {
                    stream.write_all(chunk.as_bytes()).await?;
                    record.flooded.fetch_add(piece, Ordering::SeqCst);
                }
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
    }
}

async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Seen>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let mut seen = Seen {
        line: lines.next().unwrap(),
        headers: lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_owned(), value.trim().to_owned())
            })
            .collect(),
        body: String::new(),
    };
    let length: usize = seen
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let whole = head_end + 4 + length;
    while buffer.len() < whole {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    seen.body = String::from_utf8(buffer[head_end + 4..whole].to_vec()).unwrap();
    buffer.drain(..whole);
    Ok(Some(seen))
}
