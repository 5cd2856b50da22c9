//! `check` over the fake provider: what it says, what it may not do, how it exits.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::NotificationType;
use bellhop::clock::UnixMillis;
use bellhop::provider::{
    Answer, ListItem, Read, ReadError, Reads, Registry, RegistryError, Rule, RuleBody, ServerTime,
};
use bellhop::registration::{Check, Level, Resolver, check, exit_code};
use serde_json::json;

use super::fake::{State, Switches, World};
use super::{WANTED, desired, mixed};

struct Suppliers(Result<usize, ReadError>);

#[async_trait]
impl Reads for Suppliers {
    async fn read(&self, read: &Read) -> Result<Answer, ReadError> {
        assert_eq!(read, &Read::Suppliers);
        let item = |n: usize| ListItem {
            id: n.to_string(),
            data: serde_json::value::to_raw_value(&json!({"id": n})).unwrap(),
        };
        self.0
            .clone()
            .map(|count| Answer::Many((0..count).map(item).collect()))
    }

    async fn reload_credentials(&self) -> bool {
        false
    }
}

struct Addresses(Vec<&'static str>);

#[async_trait]
impl Resolver for Addresses {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(host, "hooks.example.com");
        if self.0.is_empty() {
            return Err(io::Error::other("no such name"));
        }
        Ok(self
            .0
            .iter()
            .map(|address| address.parse().unwrap())
            .collect())
    }
}

/// The fake's rules, and a clock that is off by so many seconds.
struct Skewed(Arc<World>, i64);

#[async_trait]
impl Registry for Skewed {
    async fn get(&self, kind: NotificationType) -> Result<Option<Rule>, RegistryError> {
        self.0.get(kind).await
    }
    async fn create(&self, _: NotificationType, _: &RuleBody) -> Result<Rule, RegistryError> {
        panic!("check writes")
    }
    async fn update(&self, _: NotificationType, _: &RuleBody) -> Result<Rule, RegistryError> {
        panic!("check writes")
    }
    async fn delete(&self, _: NotificationType) -> Result<(), RegistryError> {
        panic!("check writes")
    }
    fn server_time(&self) -> Option<ServerTime> {
        Some(ServerTime {
            theirs: UnixMillis::from_secs(1_700_000_000),
            ours: UnixMillis::from_secs(1_700_000_000 + self.1),
        })
    }
}

async fn run(state: State, skew: i64, addresses: Vec<&'static str>) -> Vec<Check> {
    let registry = Skewed(World::new(state), skew);
    let checks = check(
        Duration::from_mins(5),
        &desired(&WANTED),
        &registry,
        &Suppliers(Ok(3)),
        &Addresses(addresses),
    )
    .await;
    let calls = &registry.0.state().calls;
    assert!(calls.iter().all(|(name, _)| *name == "get"), "{calls:?}");
    checks
}

fn find<'a>(checks: &'a [Check], what: &str) -> &'a Check {
    let found = checks.iter().find(|check| check.what == what);
    found.unwrap_or_else(|| panic!("no line for {what}: {checks:?}"))
}

#[tokio::test]
async fn each_finding_is_one_line_with_its_next_step() {
    let checks = run(mixed(Switches::default()), 1, vec!["203.0.114.9"]).await;
    for what in [
        "public url",
        "registry credentials",
        "reseller credentials",
        "clock",
    ] {
        assert_eq!(find(&checks, what).level, Level::Ok, "{what}");
    }
    let create = find(&checks, "rule ChannelBinding");
    assert_eq!(create.level, Level::Ok);
    assert!(create.detail.contains("would create"), "{create}");
    let moved = find(&checks, "rule Availability");
    assert!(
        moved.level == Level::Warn && moved.detail.contains("url differs"),
        "{moved}"
    );
    let theirs = find(&checks, "rule PriceSchedule");
    assert!(
        theirs.level == Level::Fail && theirs.detail.contains("adoption"),
        "{theirs}"
    );
    let unwanted = find(&checks, "rule Rate");
    assert!(unwanted.detail.contains("would delete"), "{unwanted}");
    assert!(
        !checks.iter().any(|check| check.what == "rule Booking"),
        "none of our business"
    );
    assert_eq!(exit_code(&checks), 1);
    for shown in checks.iter().map(ToString::to_string) {
        assert!(
            !shown.contains("their-secret-token") && !shown.contains("-key-"),
            "{shown}"
        );
        assert_eq!(shown.lines().count(), 1);
    }
    assert!(create.to_string().starts_with("ok    rule ChannelBinding"));
}

#[tokio::test]
async fn addresses_clocks_and_credentials() {
    for (addresses, level) in [
        (vec![], Level::Fail),
        (vec!["10.1.2.3"], Level::Warn),
        (vec!["100.64.0.1"], Level::Warn),
        (vec!["::ffff:192.168.0.1"], Level::Warn),
        (vec!["fd00::1"], Level::Warn),
        (vec!["2001:4860:4860::8888"], Level::Ok),
    ] {
        let checks = run(State::default(), 0, addresses.clone()).await;
        assert_eq!(find(&checks, "public url").level, level, "{addresses:?}");
    }
    for (skew, level) in [
        (2, Level::Ok),
        (-60, Level::Warn),
        (3600, Level::Fail),
        (-301, Level::Fail),
    ] {
        let checks = run(State::default(), skew, vec!["203.0.114.9"]).await;
        assert_eq!(find(&checks, "clock").level, level, "{skew}");
        assert_eq!(exit_code(&checks), u8::from(level == Level::Fail));
    }
    let refused = State {
        unauthorized: true,
        ..State::default()
    };
    let checks = run(refused, 0, vec!["203.0.114.9"]).await;
    assert_eq!(find(&checks, "registry credentials").level, Level::Fail);
    assert!(!checks.iter().any(|check| check.what.starts_with("rule")));
}
