//! The Reseller API's reads (provider reference §6), v1.3 or v1.2: the paths are the same, the base
//! URL chooses.
//!
//! Owns: the request line of each read and what each answer means (design: "From the provider,
//! when fetching"). One call is one request.
//!
//! Never here: trying again or pacing (the pipeline's), and an answer about something else than
//! what was asked for.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::base::{BaseUrl, push_segment, push_value};
use super::client::{Call, HttpAnswer, HttpClient};
use super::credentials::{CredentialSource, Current};
use super::json::NotUnderstood;
use super::wire::{self, Expected};
use super::{Answer, Read, ReadError, Reads, Window};
use crate::api::entity::InvalidIdentifier;

const API: &str = "reseller";

/// Error codes of the provider that contradict a removal, whatever the status says.
const NOT_A_REMOVAL: [&str; 6] = [
    "BAD_REQUEST",
    "CONFLICT",
    "ENTITY_TOO_LARGE",
    "FAILED_DEPENDENCY",
    "FORBIDDEN",
    "INTERNAL_SERVER",
];

/// Reads changed data. See [`Reads`].
#[derive(Debug)]
pub struct ResellerClient {
    http: Arc<HttpClient>,
    base: BaseUrl,
    credentials: Arc<CredentialSource>,
    rich_content: bool,
    /// The generation of credentials that [`Reads::reload_credentials`] last told of.
    told: AtomicU64,
}

impl ResellerClient {
    /// A client for the API at `base`, `…/v1.3` or `…/v1.2`.
    pub fn new(http: Arc<HttpClient>, base: BaseUrl, credentials: Arc<CredentialSource>) -> Self {
        let told = AtomicU64::new(credentials.reload());
        Self {
            http,
            base,
            credentials,
            rich_content: false,
            told,
        }
    }

    /// Whether catalogue reads ask for v1.3's rich content object (`content=true`). Off by default:
    /// it makes answers many times larger, and texts and pictures change without selling anything
    /// else. Not sent to v1.2, which does not know it.
    #[must_use]
    pub fn with_rich_content(mut self, on: bool) -> Self {
        self.rich_content = on && !self.base.as_str().ends_with("/v1.2");
        self
    }

    /// The request's URL.
    fn url(&self, read: &Read) -> Result<String, InvalidIdentifier> {
        let mut url = self.base.as_str().to_owned();
        if let Read::Booking { booking } = read {
            url.push_str("/bookings");
            push_segment(&mut url, booking)?;
            return Ok(url);
        }
        url.push_str("/suppliers");
        if let Some(supplier) = supplier(read) {
            push_segment(&mut url, supplier)?;
        }
        if matches!(read, Read::Products { .. }) {
            url.push_str("/products");
        }
        if let Some(product) = product(read) {
            url.push_str("/products");
            push_segment(&mut url, product)?;
        }
        match read {
            Read::Rates { .. } => url.push_str("/rates"),
            Read::Rate { rate, .. } => {
                url.push_str("/rates");
                push_segment(&mut url, rate)?;
            }
            Read::Availability { rate, window, .. } => {
                let Window { start, end } = window;
                // The last second of the last day: at midnight the next one has begun.
                let _ = write!(
                    url,
                    "/availabilities?start={start}T00:00:00Z&end={end}T23:59:59Z&rate_id="
                );
                push_value(&mut url, rate)?;
                return Ok(url);
            }
            Read::PriceSchedule { rate, window, .. } => {
                let Window { start, end } = window;
                let _ = write!(
                    url,
                    "/pricing/schedule?start_date={start}&end_date={end}&rate_id="
                );
                push_value(&mut url, rate)?;
                return Ok(url);
            }
            _ => {}
        }
        if self.rich_content {
            url.push_str("?content=true");
        }
        Ok(url)
    }

    fn understand(
        &self,
        read: &Read,
        name: &'static str,
        answer: HttpAnswer,
        current: &Current,
    ) -> Result<Answer, ReadError> {
        let after = answer.retry_after;
        let request = answer.request_id;
        let error = wire::error_object(&answer.body, &current.credentials);
        match answer.status {
            200 => take(read, &answer.body).map_err(|problem| {
                self.http.count_not_understood(API, name);
                let reason = format!(
                    "the answer to `{name}` {} (request {request})",
                    problem.reason
                );
                if problem.hopeless {
                    ReadError::Refused { reason }
                } else {
                    ReadError::Retry { reason, after }
                }
            }),
            status @ (404 | 410)
                if let Some(error) = &error
                    && error.nested
                    && !NOT_A_REMOVAL.contains(&error.code.as_str()) =>
            {
                Err(ReadError::Gone {
                    status,
                    code: error.code.clone(),
                })
            }
            status @ (401 | 403) => Err(self.unauthorized(status, name, current.generation)),
            status => {
                let said = error.map_or_else(
                    || "without the provider's error object".to_owned(),
                    |error| error.to_string(),
                );
                let reason = format!(
                    "the provider answered {status} to `{name}`: {said} (request {request})"
                );
                Err(match status {
                    404 | 408 | 410 | 425 | 429 => ReadError::Retry { reason, after },
                    400..=499 => ReadError::Refused { reason },
                    _ => ReadError::Retry { reason, after },
                })
            }
        }
    }

    /// 401 and 403 stop everything, so they must not be about credentials that were replaced while
    /// the call was under way: nobody would notice the change a second time.
    fn unauthorized(&self, status: u16, name: &str, generation: u64) -> ReadError {
        if self.credentials.reload() == generation {
            return ReadError::Unauthorized { status };
        }
        ReadError::Retry {
            reason: format!(
                "the provider answered {status} to `{name}` with credentials that have been replaced since"
            ),
            after: None,
        }
    }
}

#[async_trait]
impl Reads for ResellerClient {
    async fn read(&self, read: &Read) -> Result<Answer, ReadError> {
        let name = call_name(read);
        let url = self.url(read).map_err(|error| ReadError::Refused {
            reason: format!("cannot ask for `{name}`: {error}"),
        })?;
        let current = self
            .credentials
            .current()
            .map_err(|error| ReadError::Retry {
                reason: error.to_string(),
                after: None,
            })?;
        let call = Call {
            api: API,
            name,
            method: reqwest::Method::GET,
            url: &url,
            body: None,
            credentials: &current.credentials,
        };
        match self.http.call(call).await {
            Ok(answer) => self.understand(read, name, answer, &current),
            Err(error) if error.too_large => Err(ReadError::Refused {
                reason: error.reason,
            }),
            Err(error) => Err(ReadError::Retry {
                reason: error.reason,
                after: None,
            }),
        }
    }

    async fn reload_credentials(&self) -> bool {
        let now = self.credentials.reload();
        self.told.swap(now, Ordering::SeqCst) != now
    }
}

fn take(read: &Read, body: &[u8]) -> Result<Answer, NotUnderstood> {
    let single = |envelope, id, parent| {
        let expected = Expected {
            envelope,
            id,
            parent,
        };
        wire::single(body, &expected).map(Answer::One)
    };
    match read {
        Read::Suppliers => wire::list(body, "suppliers", None).map(Answer::Many),
        Read::Products { supplier } => {
            wire::list(body, "products", Some(("supplierId", supplier))).map(Answer::Many)
        }
        Read::Rates { product, .. } => {
            wire::list(body, "rates", Some(("productId", product))).map(Answer::Many)
        }
        Read::Supplier { supplier } => single("supplier", supplier, None),
        Read::Product { supplier, product } => {
            single("product", product, Some(("supplierId", supplier)))
        }
        Read::Rate { product, rate, .. } => single("rate", rate, Some(("productId", product))),
        Read::Booking { booking } => single("booking", booking, None),
        Read::Availability {
            product,
            rate,
            window,
            ..
        } => wire::availability(body, product, rate, *window).map(Answer::One),
        Read::PriceSchedule { rate, window, .. } => {
            wire::price_schedule(body, rate, *window).map(Answer::One)
        }
    }
}

/// Metric label and name in reasons.
const fn call_name(read: &Read) -> &'static str {
    match read {
        Read::Suppliers => "suppliers",
        Read::Supplier { .. } => "supplier",
        Read::Products { .. } => "products",
        Read::Product { .. } => "product",
        Read::Rates { .. } => "rates",
        Read::Rate { .. } => "rate",
        Read::Availability { .. } => "availabilities",
        Read::PriceSchedule { .. } => "price_schedule",
        Read::Booking { .. } => "booking",
    }
}

fn supplier(read: &Read) -> Option<&str> {
    match read {
        Read::Suppliers | Read::Booking { .. } => None,
        Read::Supplier { supplier }
        | Read::Products { supplier }
        | Read::Product { supplier, .. }
        | Read::Rates { supplier, .. }
        | Read::Rate { supplier, .. }
        | Read::Availability { supplier, .. }
        | Read::PriceSchedule { supplier, .. } => Some(supplier),
    }
}

fn product(read: &Read) -> Option<&str> {
    match read {
        Read::Suppliers | Read::Booking { .. } | Read::Supplier { .. } | Read::Products { .. } => {
            None
        }
        Read::Product { product, .. }
        | Read::Rates { product, .. }
        | Read::Rate { product, .. }
        | Read::Availability { product, .. }
        | Read::PriceSchedule { product, .. } => Some(product),
    }
}
