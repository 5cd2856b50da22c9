//! The http sink: one event, one POST in CloudEvents binary mode.
//!
//! Owns: the client of one sink (its own connections, so that a hanging sink holds up no other),
//! its extra headers and certificate authorities, read again when their files change, and the
//! meaning of each answer:
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | delivered |
//! | no connection, no answer in time, 401, 403, 404, 408, 409, 425, 429, 5xx | the sink is not well |
//! | 3xx, 405, 407, 410, 421, 426 | not well either: something else is at the address. A redirect is never followed: it would carry data and headers to a place nobody named |
//! | own CA file or headers unusable | not well: it is for people to mend, and no event's fault |
//! | 400, 413, 415, 422 | dead letter at once |
//! | any other | a failed attempt of this event; dead letter when `delivery.retry` is used up |
//!
//! Never here: a second try (the deliverer decides), a followed redirect, a proxy of the
//! environment's (it would get the headers), a header's value or anything of an answer's body in a log line or an error.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, Url};

use super::event::{self, Origin};
use super::{Class, Sink, Verdict};
use crate::clock::{Clock, Ticks, UnixMillis};
use crate::files::Stamp;
use crate::settings::SinkSettings;
use crate::state::StoredEvent;

/// An answer's body is read up to here, only so that its connection can be used again.
const BODY_LIMIT: usize = 64 * 1024;
/// Files are looked at again at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A longer `Retry-After` is a mistake; the breaker probes after this all the same.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A header file is at most this long; longer ones are a mistake.
const HEADER_LIMIT: u64 = 16 * 1024;

/// Why an http sink cannot be made or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpSinkError {
    /// The address.
    #[error("sink `{sink}`: its uri is no absolute http or https URL: {reason}; correct `http`")]
    Uri {
        /// Which sink.
        sink: String,
        /// What is wrong with it.
        reason: String,
    },
    /// One of its files.
    #[error("sink `{sink}`: {file}: {reason}")]
    File {
        /// Which sink.
        sink: String,
        /// Which file. Never its content.
        file: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
}

/// One http sink.
pub struct HttpSink {
    settings: SinkSettings,
    url: Url,
    origin: Origin,
    clock: Arc<dyn Clock>,
    loaded: Mutex<Loaded>,
}

/// What was read from files, and when.
#[derive(Default)]
struct Loaded {
    looked: Option<Ticks>,
    stamp: (Stamp, Stamp),
    ready: Option<(Client, HeaderMap)>,
}

impl HttpSink {
    /// `origin` makes the envelope. Files are read at the first event, and again when they change:
    /// one that is missing makes the sink not well, but stops nothing else.
    ///
    /// # Errors
    /// When the address is not an absolute http or https URL.
    pub fn new(
        settings: &SinkSettings,
        origin: Origin,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HttpSinkError> {
        let wrong = |reason: String| HttpSinkError::Uri {
            sink: settings.name.clone(),
            reason,
        };
        let url = Url::parse(&settings.uri).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong(format!("its scheme is `{}`", url.scheme())));
        }
        Ok(Self {
            settings: settings.clone(),
            url,
            origin,
            clock,
            loaded: Mutex::default(),
        })
    }

    /// Client and headers, read again if their files changed. Files that became unusable leave the
    /// last good ones in place.
    fn ready(&self) -> Option<(Client, HeaderMap)> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.ticks();
        if loaded.looked.is_some_and(|at| now.since(at) < LOOK_AGAIN) {
            return loaded.ready.clone();
        }
        loaded.looked = Some(now);
        let stamp = self.stamp();
        if loaded.ready.is_some() && loaded.stamp == stamp {
            return loaded.ready.clone();
        }
        match self.load() {
            Ok(ready) => loaded.ready = Some(ready),
            Err(error) => {
                tracing::warn!(%error, kept_the_old = loaded.ready.is_some(), "cannot use a sink's files");
            }
        }
        loaded.stamp = stamp;
        loaded.ready.clone()
    }

    fn stamp(&self) -> (Stamp, Stamp) {
        let headers = self.settings.headers_dir.as_deref();
        let ca = self.settings.ca_file.as_deref();
        (
            headers.map(Stamp::of_folder).unwrap_or_default(),
            ca.map(Stamp::of_file).unwrap_or_default(),
        )
    }

    fn load(&self) -> Result<(Client, HeaderMap), HttpSinkError> {
        let headers = match &self.settings.headers_dir {
            Some(folder) => read_headers(folder),
            None => Ok(HeaderMap::new()),
        };
        let headers = headers.map_err(|(file, reason)| self.wrong_file(&file, reason))?;
        Ok((self.client()?, headers))
    }

    fn client(&self) -> Result<Client, HttpSinkError> {
        // Whoever installs a provider first wins; all of ours are the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let timeout = self.settings.delivery.timeout;
        let mut builder = Client::builder()
            .user_agent(concat!("bellhop/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout)
            .timeout(timeout)
            .pool_idle_timeout(Duration::from_mins(1));
        let mut about = Path::new("the system's certificate authorities");
        if let Some(file) = &self.settings.ca_file {
            about = file;
            let pem = std::fs::read(file).map_err(|error| {
                self.wrong_file(file, format!("{error}; check the caSecretRef's Secret"))
            })?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|_| {
                self.wrong_file(
                    file,
                    "holds no PEM certificates; put the CA's there".to_owned(),
                )
            })?;
            if roots.is_empty() {
                let reason = "holds no PEM certificates; put the CA's there".to_owned();
                return Err(self.wrong_file(file, reason));
            }
            builder = builder.tls_certs_only(roots);
        } else if self.url.scheme() == "http" {
            // Images without public certificates must still reach a plain sink.
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(|error| {
            self.wrong_file(
                about,
                format!("no TLS client can be made of it: {}", error.without_url()),
            )
        })
    }

    fn wrong_file(&self, file: &Path, reason: String) -> HttpSinkError {
        HttpSinkError::File {
            sink: self.settings.name.clone(),
            file: file.display().to_string(),
            reason,
        }
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn send(&self, event: &StoredEvent) -> Verdict {
        let Some((client, own)) = self.ready() else {
            return not_well(Class::Misconfigured);
        };
        let mut headers = own;
        for (name, value) in self.origin.headers(event) {
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).expect("lower-case letters and digits"),
                HeaderValue::from_str(&value).expect("encoded as printable ASCII"),
            );
        }
        let mut request = client.post(self.url.clone());
        if let Some(data) = &event.data {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(event::DATA));
            request = request.body(data.clone());
        }
        match request.headers(headers).send().await {
            Ok(response) => {
                let verdict = self.judge(&response);
                drain(response).await;
                verdict
            }
            Err(error) if error.is_timeout() => not_well(Class::Timeout),
            Err(_) => not_well(Class::Connection),
        }
    }
}

impl HttpSink {
    fn judge(&self, response: &Response) -> Verdict {
        let status = response.status();
        let class = classify(status);
        let reason = || format!("the sink answered {}", status.as_u16());
        match class {
            Class::Delivered => Verdict::Delivered,
            Class::Rejected => Verdict::Refused {
                class,
                reason: reason(),
            },
            Class::Other => Verdict::Failed {
                class,
                reason: reason(),
            },
            _ => Verdict::NotWell {
                class,
                retry_after: response
                    .headers()
                    .get(RETRY_AFTER)
                    .and_then(|value| value.to_str().ok())
                    .and_then(|text| self.retry_after(text)),
            },
        }
    }

    /// Seconds, or an HTTP date.
    fn retry_after(&self, text: &str) -> Option<Duration> {
        let wait = if let Ok(seconds) = text.trim().parse() {
            Duration::from_secs(seconds)
        } else {
            let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
            UnixMillis(at.as_millisecond()).since(self.clock.now())
        };
        Some(wait.min(LONGEST_RETRY_AFTER))
    }
}

fn not_well(class: Class) -> Verdict {
    Verdict::NotWell {
        class,
        retry_after: None,
    }
}

/// The table of the module documentation.
fn classify(status: StatusCode) -> Class {
    match status.as_u16() {
        200..=299 => Class::Delivered,
        400 | 413 | 415 | 422 => Class::Rejected,
        401 | 403 => Class::Unauthorized,
        404 => Class::NotFound,
        408 => Class::Timeout,
        409 => Class::Conflict,
        425 | 429 => Class::Throttled,
        300..=399 | 405 | 407 | 410 | 421 | 426 => Class::WrongAddress,
        500..=599 => Class::ServerError,
        _ => Class::Other,
    }
}

/// Reads a little, so that the connection can be used again; a longer body closes it.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > BODY_LIMIT {
            return;
        }
    }
}

/// One header for each visible file. Errors name the file and never its content.
fn read_headers(folder: &Path) -> Result<HeaderMap, (std::path::PathBuf, String)> {
    let unreadable = |error: std::io::Error| {
        let reason = format!("{error}; check the headersFrom Secret");
        (folder.to_owned(), reason)
    };
    let mut headers = HeaderMap::new();
    for file in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = file.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        let wrong = |reason: &str| (path.clone(), reason.to_owned());
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| wrong("its name is no header name; rename the Secret's key"))?;
        let reserved = [
            "content-type",
            "content-length",
            "host",
            "transfer-encoding",
        ];
        if name.to_ascii_lowercase().starts_with("ce-") || reserved.contains(&header.as_str()) {
            return Err(wrong(
                "this header is Bellhop's own; remove the Secret's key",
            ));
        }
        let length = std::fs::metadata(&path).map_err(unreadable)?.len();
        if length > HEADER_LIMIT {
            return Err(wrong("a header value has at most 16 KiB"));
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        let mut value = HeaderValue::from_str(text.trim_end_matches(['\r', '\n']))
            .map_err(|_| wrong("its content is no header value; it must be one line of text"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_class_that_the_design_gives_it() {
        let expected = |class: Class, codes: &[u16]| {
            for code in codes {
                let status = StatusCode::from_u16(*code).unwrap();
                assert_eq!(classify(status), class, "{code}");
            }
        };
        expected(Class::Delivered, &[200, 201, 202, 204, 299]);
        expected(Class::Rejected, &[400, 413, 415, 422]);
        expected(Class::Unauthorized, &[401, 403]);
        expected(Class::NotFound, &[404]);
        expected(Class::Timeout, &[408]);
        expected(Class::Conflict, &[409]);
        expected(Class::Throttled, &[425, 429]);
        expected(Class::ServerError, &[500, 501, 502, 503, 504, 599]);
        expected(
            Class::WrongAddress,
            &[301, 302, 304, 307, 308, 405, 407, 410, 421, 426],
        );
        expected(
            Class::Other,
            &[402, 406, 411, 412, 414, 418, 428, 431, 451, 100, 600],
        );
    }
}
