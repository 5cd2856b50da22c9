//! Asking a receiver how it is: `GET /status` on its admin port, with the token of the owned Secret.
//!
//! Owns: the two ways to a pod (by its address; through the API server, for an operator outside of
//! the cluster) and what of the answer is understood.
//!
//! Never here: a decision; a proxy of the environment's, which would get the token; more of an
//! answer in memory than a status can be.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;

use super::build::ADMIN_PORT;
use super::pods::Pod;
use crate::admin::TOKEN_HEADER;
use crate::api::NotificationType;
use crate::secrets::{Fingerprint, Secret};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);

/// The longest answer: 20 sinks and 7 rules are some kilobytes.
const MAX_ANSWER: usize = 256 * 1024;

/// Why a receiver gave no answer that can be used; a small fixed set, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// No connection, or no answer in time.
    NoAnswer,
    /// It does not know the token (yet).
    Refused,
    /// Something else answered.
    NotUnderstood,
}

impl Unreachable {
    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::Refused => "refused",
            Self::NotUnderstood => "not_understood",
        }
    }
}

/// Asks receivers.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// What `/status` of this pod says.
    async fn status(
        &self,
        namespace: &str,
        pod: &Pod,
        token: &Secret,
    ) -> Result<Answer, Unreachable>;
}

/// What is understood of a receiver's `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What it says of itself.
    #[serde(default)]
    pub conditions: Vec<Said>,
    /// As in the resource's status.
    pub backlog: Option<String>,
    /// RFC 3339.
    pub last_notification_time: Option<String>,
    receiver: Option<Rules>,
}

/// One condition of `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Said {
    /// `Delivering`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A name that this version may not know.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Rules {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(rename = "type")]
    kind: NotificationType,
    key_fingerprints: Vec<String>,
}

impl Answer {
    /// Reads an answer's body.
    ///
    /// # Errors
    /// When it is none of a receiver.
    pub fn parse(body: &[u8]) -> Result<Self, Unreachable> {
        serde_json::from_slice(body).map_err(|_| Unreachable::NotUnderstood)
    }

    /// Whether notifications of a type are verified with this key.
    pub fn has_key(&self, kind: NotificationType, key: &Fingerprint) -> bool {
        let rules = self.receiver.iter().flat_map(|receiver| &receiver.rules);
        let mut keys = rules
            .filter(|rule| rule.kind == kind)
            .flat_map(|rule| &rule.key_fingerprints);
        keys.any(|one| one == key.as_str())
    }
}

/// By the pods' addresses: for an operator in the cluster.
pub struct ByAddress {
    http: reqwest::Client,
}

impl ByAddress {
    /// With connections of its own.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new() -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            // Thousands of receivers: a connection each would be kept for the next minute's look.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { http })
    }
}

#[async_trait]
impl Access for ByAddress {
    async fn status(
        &self,
        _namespace: &str,
        pod: &Pod,
        token: &Secret,
    ) -> Result<Answer, Unreachable> {
        let address = pod.address.as_deref().ok_or(Unreachable::NoAnswer)?;
        let host = match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => address.to_owned(),
        };
        let url = format!("http://{host}:{ADMIN_PORT}/status");
        let request = self.http.get(url).bearer_auth(token.expose());
        let answer = request.send().await.map_err(|_| Unreachable::NoAnswer)?;
        read(answer.into()).await
    }
}

/// Through the API server: for an operator that cannot reach the pods' network.
pub struct ByProxy {
    client: Client,
}

impl ByProxy {
    /// Through this client.
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Access for ByProxy {
    async fn status(
        &self,
        namespace: &str,
        pod: &Pod,
        token: &Secret,
    ) -> Result<Answer, Unreachable> {
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{}:{ADMIN_PORT}/proxy/status",
            pod.name
        );
        let request = http::Request::get(path)
            .header(TOKEN_HEADER, token.expose())
            .body(Body::empty())
            .map_err(|_| Unreachable::NoAnswer)?;
        let asking = async {
            let answer = self.client.send(request).await;
            read(answer.map_err(|_| Unreachable::NoAnswer)?).await
        };
        let answer = tokio::time::timeout(LIMIT, asking).await;
        answer.unwrap_or(Err(Unreachable::NoAnswer))
    }
}

/// What an answer says, if it is one, and no longer than it can be.
async fn read<B>(answer: http::Response<B>) -> Result<Answer, Unreachable>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    judge(answer.status().as_u16())?;
    let body = Limited::new(answer.into_body(), MAX_ANSWER);
    let body = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Unreachable::NotUnderstood
        } else {
            Unreachable::NoAnswer
        }
    })?;
    Answer::parse(&body.to_bytes())
}

const fn judge(status: u16) -> Result<(), Unreachable> {
    match status {
        200 => Ok(()),
        401 => Err(Unreachable::Refused),
        502..=504 => Err(Unreachable::NoAnswer),
        _ => Err(Unreachable::NotUnderstood),
    }
}
