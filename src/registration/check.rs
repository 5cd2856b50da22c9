//! `bellhop check`: what would stand in the way of `bellhop run`, found out without writing.
//!
//! Owns: the checks, one line each, and the exit status they add up to. Never here: a write to the
//! provider; a connection to the public URL (whoever answers there is not known to be us).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::address::is_public;
use super::plan::{DesiredRules, Observed, RulePlan, plan_rule};
use crate::api::NotificationType;
use crate::provider::{Answer, Read, ReadError, Reads, Registry, RegistryError, Rule};
use crate::secrets::Secret;

/// Differences between clocks up to this are not worth a word: HTTP dates are whole seconds.
const UNREMARKABLE_SKEW: Duration = Duration::from_secs(10);

/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warn,
    /// `bellhop run` would not get through.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// How it ended.
    pub level: Level,
    /// What was looked at.
    pub what: String,
    /// What was found; after a semicolon, what to do next.
    pub detail: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}  {:<20}  {}", self.level, self.what, self.detail)
    }
}

/// The exit status of `bellhop check`: 1 when a check failed, else 0.
pub fn exit_code(checks: &[Check]) -> u8 {
    u8::from(checks.iter().any(|check| check.level == Level::Fail))
}

fn line(level: Level, what: impl Into<String>, detail: impl Into<String>) -> Check {
    Check {
        level,
        what: what.into(),
        detail: detail.into(),
    }
}

/// Turns a host into addresses.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// All addresses of a host name or literal address.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The machine's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, 443)))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in 10 s"))??;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Runs all checks. Reads only; a few seconds with a provider that is well. `max_skew` is
/// `spec.signature.maxSkew`.
pub async fn check(
    max_skew: Duration,
    desired: &DesiredRules,
    registry: &dyn Registry,
    reads: &dyn Reads,
    resolver: &dyn Resolver,
) -> Vec<Check> {
    let mut checks = vec![check_url(&desired.url, resolver).await];
    checks.extend(check_rules(desired, registry).await);
    checks.push(check_reads(reads).await);
    checks.push(check_clock(max_skew, registry));
    checks
}

async fn check_url(url: &str, resolver: &dyn Resolver) -> Check {
    let what = "public url";
    let parsed = reqwest::Url::parse(url).ok();
    let Some((scheme, host)) = parsed
        .as_ref()
        .and_then(|url| Some((url.scheme(), url.host_str()?)))
    else {
        return line(
            Level::Fail,
            what,
            "spec.url is no URL; write https://HOST/PATH",
        );
    };
    if scheme != "https" {
        return line(
            Level::Fail,
            what,
            format!("spec.url is {scheme}; the provider posts to https only, put TLS in front"),
        );
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match resolver.resolve(bare).await {
        Err(error) => line(
            Level::Fail,
            what,
            format!("{host} does not resolve ({error}); create its DNS record"),
        ),
        Ok(found) if found.is_empty() => line(
            Level::Fail,
            what,
            format!("{host} has no address; create its DNS record"),
        ),
        Ok(found) => match found.iter().find(|address| !is_public(**address)) {
            Some(address) => line(
                Level::Warn,
                what,
                format!(
                    "{host} is {address} from here, which the provider cannot reach; make sure that its public DNS record has a public address"
                ),
            ),
            None => line(Level::Ok, what, format!("{host} resolves")),
        },
    }
}

async fn check_rules(desired: &DesiredRules, registry: &dyn Registry) -> Vec<Check> {
    let credentials = "registry credentials";
    let mut checks = Vec::new();
    let mut answered = false;
    let mut silent = Vec::new();
    for kind in NotificationType::ALL {
        let wanted = desired.rules.contains_key(&kind);
        match registry.get(kind).await {
            Err(RegistryError::Unauthorized { status }) => {
                checks.insert(0, line(
                    Level::Fail,
                    credentials,
                    format!("refused ({status}); put a valid apiKey and apiSecret for this environment into the Secret"),
                ));
                return checks;
            }
            Ok(rule) => {
                answered = true;
                checks.extend(check_rule(desired, kind, rule));
            }
            Err(error @ RegistryError::UnsupportedType { .. }) if wanted => checks.push(line(
                Level::Fail,
                what_rule(kind),
                format!("{error}; take it out of spec.notifications"),
            )),
            Err(error) if wanted => silent.push((kind, error)),
            Err(_) => {}
        }
    }
    if !answered && let Some((_, error)) = silent.first() {
        // One line for what has one cause.
        let detail = format!(
            "could not be tried: {error}; check the registry's address and the network, and try again"
        );
        checks.insert(0, line(Level::Fail, credentials, detail));
        return checks;
    }
    checks.extend(silent.into_iter().map(|(kind, error)| {
        line(
            Level::Fail,
            what_rule(kind),
            format!("could not be read: {error}; try again"),
        )
    }));
    checks.insert(0, line(Level::Ok, credentials, "accepted"));
    checks
}

fn what_rule(kind: NotificationType) -> String {
    format!("rule {kind}")
}

/// What `run` would do about one type; `None` when nothing of it is ours or wanted.
fn check_rule(desired: &DesiredRules, kind: NotificationType, rule: Option<Rule>) -> Option<Check> {
    let key = rule.as_ref().and_then(|rule| rule.security_key.as_ref());
    let seen = Observed {
        // Where keys are stored is not known here: take it that the key is.
        stored: key.map(Secret::fingerprint),
        loaded: None,
        rule,
    };
    let ours = seen
        .rule
        .as_ref()
        .is_some_and(|rule| desired.owner.owns(&rule.url));
    if !ours && !desired.rules.contains_key(&kind) {
        return None;
    }
    let RulePlan { steps, refusal } = plan_rule(desired, kind, &seen);
    let (level, detail) = if let Some(refusal) = refusal {
        (Level::Fail, refusal.to_string())
    } else if steps.is_empty() {
        (Level::Ok, "as it should be".to_owned())
    } else {
        let plan = RulePlan {
            steps,
            refusal: None,
        };
        let level = if seen.rule.is_none() {
            Level::Ok
        } else {
            Level::Warn
        };
        let detail = if plan.steps[0].action.name() == "create" {
            // All that follows a creation goes without saying.
            "there is none; `bellhop run` would create it, store its key and enable it".to_owned()
        } else {
            format!("`bellhop run` would {}", plan.describe())
        };
        (level, detail)
    };
    Some(line(level, what_rule(kind), detail))
}

async fn check_reads(reads: &dyn Reads) -> Check {
    let what = "reseller credentials";
    match reads.read(&Read::Suppliers).await {
        Ok(Answer::Many(suppliers)) if suppliers.is_empty() => line(
            Level::Warn,
            what,
            "accepted, but the channel has no supplier; ask the provider whether it is bound yet",
        ),
        Ok(Answer::Many(suppliers)) => line(
            Level::Ok,
            what,
            format!("accepted; the channel has {} suppliers", suppliers.len()),
        ),
        Ok(Answer::One(_)) => line(Level::Ok, what, "accepted"),
        Err(ReadError::Unauthorized { status }) => line(
            Level::Fail,
            what,
            format!(
                "refused ({status}); put a valid apiKey and apiSecret for this environment into the Secret"
            ),
        ),
        Err(error @ ReadError::Retry { .. }) => line(
            Level::Fail,
            what,
            format!("could not be tried: {error}; try again"),
        ),
        Err(error) => line(
            Level::Fail,
            what,
            format!("the list of suppliers is refused: {error}; check the API's base URL"),
        ),
    }
}

fn check_clock(max_skew: Duration, registry: &dyn Registry) -> Check {
    let what = "clock";
    let Some(time) = registry.server_time() else {
        return line(
            Level::Warn,
            what,
            "the provider did not tell its time; compare this machine's clock with a time server",
        );
    };
    let (skew, way) = if time.ours > time.theirs {
        (time.ours.since(time.theirs), "ahead of")
    } else {
        (time.theirs.since(time.ours), "behind")
    };
    let detail = format!("{} s {way} the provider's", skew.as_secs());
    if skew > max_skew {
        line(
            Level::Fail,
            what,
            format!("{detail}, more than signature.maxSkew; synchronise it (NTP)"),
        )
    } else if skew > UNREMARKABLE_SKEW {
        line(Level::Warn, what, format!("{detail}; synchronise it (NTP)"))
    } else {
        line(Level::Ok, what, "agrees with the provider's")
    }
}
