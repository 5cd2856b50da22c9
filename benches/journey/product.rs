//! The real program: `bellhop run`, with its data folder, beside the instant provider.
//!
//! Owns: its manifest, its keys (laid out before the start, as a restart finds them), and waiting
//! for its first 200. Never here: a flag that users do not have.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::argument;
use crate::load::{self, KEY};
use crate::process::{Core, Process};

/// Longer than any start may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// What the manifest says.
pub struct Setup {
    /// The data folder; its `store` may be filled already.
    pub data: PathBuf,
    /// `fetch.requestsPerSecond`.
    pub requests_per_second: u32,
    /// `state.embedded.size`.
    pub size: &'static str,
    /// Whether all seven types are subscribed, as by default, or rates only.
    pub all_types: bool,
}

/// A running program.
pub struct Product {
    pub process: Process,
    pub public: SocketAddr,
    pub feed: SocketAddr,
    /// From its start to the first 200.
    pub took: Duration,
}

impl Setup {
    /// Starts it, and waits for its first 200.
    pub fn start(&self, provider: SocketAddr) -> io::Result<Product> {
        fs::create_dir_all(&self.data)?;
        let keys = self.data.join("keys");
        fs::create_dir_all(&keys)?;
        fs::write(keys.join("rate"), KEY)?;
        let manifest = self.data.join("manifest.yaml");
        fs::write(&manifest, self.manifest())?;
        let [public, admin, feed] = free_addresses()?;
        let arguments = [
            "run".to_owned(),
            "-f".to_owned(),
            manifest.display().to_string(),
            format!("--data-dir={}", self.data.display()),
            format!("--registry-url=http://{provider}/registry/v1"),
            format!("--api-url=http://{provider}/v1.3"),
            format!("--public-listen={public}"),
            format!("--admin-listen={admin}"),
            format!("--feed-listen={feed}"),
        ];
        let started = Instant::now();
        let program = Path::new(env!("CARGO_BIN_EXE_bellhop"));
        let log = self.data.join("log");
        let process = Process::program(program, Core::Server, arguments, &log)?;
        let request = load::request(0);
        loop {
            if let Ok(answer) = exchange(public, &request)
                && answer.starts_with("HTTP/1.1 200")
            {
                break;
            }
            if started.elapsed() > PATIENCE {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(io::Error::other(format!(
                    "`bellhop run` does not start: {last:?}"
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Product {
            process,
            public,
            feed,
            took: started.elapsed(),
        })
    }

    fn manifest(&self) -> String {
        let types = if self.all_types {
            ""
        } else {
            "  notifications: [{ type: Rate, operations: [updated] }]\n"
        };
        format!(
            "apiVersion: bellhop.dev/v1alpha1\n\
             kind: WebhookSubscription\n\
             metadata: {{ name: bench, namespace: bench }}\n\
             spec:\n  environment: sandbox\n  url: https://bench.example.com/hooks\n  \
             credentialsSecretRef: {{ name: keys }}\n{types}  \
             fetch: {{ requestsPerSecond: {} }}\n  state: {{ embedded: {{ size: {} }} }}\n\
             ---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: keys, namespace: bench }}\n\
             stringData: {{ apiKey: bench-key, apiSecret: bench-secret }}\n",
            self.requests_per_second, self.size
        )
    }
}

/// Addresses that nobody listens on now.
pub fn free_addresses() -> io::Result<[SocketAddr; 3]> {
    let bind = || TcpListener::bind(("127.0.0.1", 0));
    let held = [bind()?, bind()?, bind()?];
    Ok([
        held[0].local_addr()?,
        held[1].local_addr()?,
        held[2].local_addr()?,
    ])
}

/// One request on a connection of its own; the answer's first bytes.
fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request)?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The answer to a GET, head included.
pub fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The instant provider in a process of its own.
pub struct Provider {
    process: Process,
    pub address: SocketAddr,
}

impl Provider {
    /// `mode` as [`crate::provider::Mode`] reads it.
    pub fn start(mode: &str) -> io::Result<Self> {
        let mut process = Process::role("provider", Core::Load, &[argument("mode", mode)])?;
        let address = process.address()?;
        Ok(Self { process, address })
    }

    /// How many reads of entities it answered.
    pub fn reads(&self) -> io::Result<u64> {
        self.count("reads")
    }

    /// How many requests its registry answered.
    pub fn registry(&self) -> io::Result<u64> {
        self.count("registry")
    }

    fn count(&self, of: &str) -> io::Result<u64> {
        let answer = get(self.address, &format!("/control/{of}"))?;
        let number = answer.rsplit("\r\n").next().unwrap_or_default();
        number
            .parse()
            .map_err(|_| io::Error::other(format!("no number in `{answer}`")))
    }

    /// Ends it.
    pub fn end(self) -> io::Result<()> {
        self.process.end()
    }
}
