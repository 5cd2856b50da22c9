//! A consumer that trusts nothing: it lists once, then follows the stream through all crashes with
//! its cursor, and notes whatever a consumer must never see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;

/// What it holds of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub revision: u64,
    /// `None`: removed.
    pub data: Option<Value>,
    /// `windowstart` and `windowend`.
    pub window: Option<(String, String)>,
    retrieved: Option<String>,
}

#[derive(Debug, Default)]
pub struct View {
    pub held: BTreeMap<String, Held>,
    pub events: usize,
    /// What a consumer must never see, in words.
    pub wrong: Vec<String>,
}

impl View {
    fn take(&mut self, event: &Value) {
        let key = event["subject"].as_str().unwrap().to_owned();
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let removed = text("type").unwrap().ends_with(".removed");
        let new = Held {
            revision: text("sequence").unwrap().parse().unwrap(),
            data: (!removed).then(|| event["data"].clone()),
            window: text("windowstart").zip(text("windowend")),
            retrieved: text("retrieved"),
        };
        self.events += 1;
        if let Some(old) = self.held.get(&key) {
            if let Some(what) = went_back(old, &new) {
                self.wrong.push(format!("{key}: {what}"));
            }
            if new.revision == old.revision {
                return;
            }
        }
        self.held.insert(key, new);
    }
}

/// What an entity must never do.
fn went_back(old: &Held, new: &Held) -> Option<String> {
    let version = |held: &Held| held.data.as_ref().and_then(|data| data["version"].as_u64());
    if new.revision < old.revision {
        return Some(format!("revision {} after {}", new.revision, old.revision));
    }
    if new.revision == old.revision {
        return (new != old).then(|| format!("two states with revision {}", new.revision));
    }
    if let (Some(before), Some(after)) = (version(old), version(new))
        && after < before
    {
        return Some(format!("version {after} after {before}"));
    }
    if let (Some(before), Some(after)) = (&old.retrieved, &new.retrieved)
        && after < before
    {
        return Some(format!("retrieved {after} after {before}"));
    }
    None
}

/// Follows a feed until it is dropped.
pub struct Consumer {
    view: Arc<Mutex<View>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Consumer {
    pub fn start(base: String) -> Self {
        let view = Arc::new(Mutex::new(View::default()));
        let task = tokio::spawn(follow(base, Arc::clone(&view)));
        Self { view, task }
    }

    pub fn read<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.lock().unwrap())
    }

    /// What a consumer that begins now would hold.
    pub async fn fresh(base: &str) -> BTreeMap<String, Held> {
        let view = Mutex::new(View::default());
        list(&client(), base, &view).await.expect("the feed lists");
        view.into_inner().unwrap().held
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .build()
        .unwrap()
}

async fn follow(base: String, view: Arc<Mutex<View>>) {
    let client = client();
    let mut cursor = loop {
        match list(&client, &base, &view).await {
            Some(cursor) => break cursor,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    loop {
        watch(&client, &base, &mut cursor, &view).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All pages, and the cursor to watch from; `None` when the feed is not there.
async fn list(client: &reqwest::Client, base: &str, view: &Mutex<View>) -> Option<String> {
    let mut next: Option<String> = None;
    loop {
        let mut url = reqwest::Url::parse(&format!("{base}/v1/entities?limit=500")).unwrap();
        if let Some(token) = &next {
            url.query_pairs_mut().append_pair("continue", token);
        }
        let answer = client.get(url).send().await.ok()?;
        let page: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        for event in page["items"].as_array()? {
            view.lock().unwrap().take(event);
        }
        next = page["continue"].as_str().map(str::to_owned);
        if next.is_none() {
            return page["cursor"].as_str().map(str::to_owned);
        }
    }
}

/// Follows the stream until it breaks. A cursor that is refused after a mere crash is wrong: its
/// events were committed before they were seen.
async fn watch(client: &reqwest::Client, base: &str, cursor: &mut String, view: &Mutex<View>) {
    let request = client
        .get(format!("{base}/v1/events"))
        .header("accept", "text/event-stream")
        .header("last-event-id", &*cursor);
    let Ok(answer) = request.send().await else {
        return;
    };
    let status = answer.status();
    if status.is_client_error() {
        let body = answer.text().await.unwrap_or_default();
        let what = format!("cursor refused: {status} {body}");
        view.lock().unwrap().wrong.push(what);
        tokio::time::sleep(Duration::from_secs(1)).await;
        return;
    }
    if !status.is_success() {
        return;
    }
    let mut stream = answer.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(Ok(bytes)) = stream.next().await {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = buffer.drain(..end + 2).collect();
            message_of(std::str::from_utf8(&message).unwrap(), cursor, view);
        }
    }
}

fn message_of(message: &str, cursor: &mut String, view: &Mutex<View>) {
    let mut data: Vec<&str> = Vec::new();
    for line in message.lines() {
        if let Some(id) = line.strip_prefix("id: ") {
            id.clone_into(cursor);
        } else if let Some(part) = line.strip_prefix("data: ") {
            data.push(part);
        } else if line == "event: gone" {
            view.lock()
                .unwrap()
                .wrong
                .push("the stream said gone".to_owned());
            return;
        }
    }
    if !data.is_empty() {
        view.lock()
            .unwrap()
            .take(&serde_json::from_str(&data.join("\n")).unwrap());
    }
}
