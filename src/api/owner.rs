//! Whose rule it is: the marker in rule URLs, `url/{type}/{owner}`.
//!
//! There is no other place for a marker at the provider, and a URL alone would make a restored
//! copy of a cluster believe that it owns production.
//!
//! Owns: making and reading rule URLs; pure. Never here: a claim of ownership by anything but the
//! owner at the end of the URL.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::NotificationType;

/// The cluster id of `bellhop run`.
pub const STANDALONE: &str = "standalone";

/// Ten hex digits that name one subscription of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(String);

/// The text is no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an owner has 10 hex digits in lower case")]
pub struct InvalidOwner;

impl Owner {
    /// The owner of a subscription. `cluster_id` is the UID of the namespace kube-system, what
    /// `--cluster-id` says, or [`STANDALONE`].
    pub fn of(cluster_id: &str, namespace: &str, name: &str) -> Self {
        Self(hex::encode(
            &hash("bellhop-owner", &[cluster_id, namespace, name])[..5],
        ))
    }

    /// The ten digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of this owner's rule of a type, below the subscription's `url`.
    pub fn rule_url(&self, url: &str, kind: NotificationType) -> String {
        format!("{}/{}/{}", url.trim_end_matches('/'), kind.segment(), self)
    }

    /// Whether a rule with this URL is this owner's.
    pub fn owns(&self, rule_url: &str) -> bool {
        Route::of(rule_url).is_some_and(|route| route.owner.as_ref() == Some(self))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Owner {
    type Err = InvalidOwner;

    fn from_str(text: &str) -> Result<Self, InvalidOwner> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 10 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidOwner)
        }
    }
}

/// What the end of a URL or path says: the type, and the owner if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The notification type.
    pub kind: NotificationType,
    /// Whose rule it is; `None` when the type segment comes last.
    pub owner: Option<Owner>,
}

impl Route {
    /// Reads the last segments of a URL or path, whatever stands before them, so that a proxy that
    /// strips a prefix still works. Query and fragment are not looked at; a trailing slash is let
    /// pass. `None` when no type is there.
    pub fn of(url: &str) -> Option<Self> {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.rsplit('/');
        let last = segments.next()?;
        if let Some(kind) = NotificationType::from_segment(last) {
            return Some(Self { kind, owner: None });
        }
        let owner = last.parse().ok()?;
        let kind = NotificationType::from_segment(segments.next()?)?;
        Some(Self {
            kind,
            owner: Some(owner),
        })
    }
}

/// A stable stand-in for `metadata.uid` of an object that no API server has seen: a UUID-shaped
/// hash of namespace and name.
pub fn stand_in_uid(namespace: &str, name: &str) -> String {
    let hex = hex::encode(&hash("bellhop-uid", &[namespace, name])[..16]);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// SHA-256 of texts, each after its length, so that no two lists hash alike by their joints.
fn hash(purpose: &str, parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&purpose).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_the_documented_hash() {
        // Oracle: Python, hashlib.sha256 over length-prefixed parts (each after its
        // 64-bit big-endian length), first five bytes.
        assert_eq!(
            Owner::of("standalone", "shop", "redeam-sandbox").as_str(),
            "2a89544bb9"
        );
        assert_ne!(Owner::of("a", "bc", "d"), Owner::of("ab", "c", "d"));
        assert_ne!(Owner::of("a", "b", "c"), Owner::of("b", "b", "c"));
    }

    #[test]
    fn rule_urls_are_ours_only_by_their_end() {
        let owner: Owner = "0123456789".parse().unwrap();
        let url = owner.rule_url("https://h.example/redeam/", NotificationType::PriceSchedule);
        assert_eq!(url, "https://h.example/redeam/price-schedule/0123456789");
        assert!(owner.owns(&url));
        for other in [
            "https://h.example/redeam/price-schedule/0123456780",
            "https://h.example/redeam/price-schedule",
            "https://h.example/0123456789",
            "https://h.example/prices/0123456789",
            "https://h.example/redeam/price-schedule/0123456789/more",
            "https://h.example/redeam/price-schedule/x?/rate/0123456789",
            "",
        ] {
            assert!(!owner.owns(other), "{other}");
        }
    }

    #[test]
    fn receivers_route_by_the_end_of_the_path() {
        for (path, kind, owner) in [
            (
                "/redeam/booking/0123456789",
                NotificationType::Booking,
                true,
            ),
            ("/booking", NotificationType::Booking, false),
            ("/booking/", NotificationType::Booking, false),
            ("/rate/booking/0123456789", NotificationType::Booking, true),
            ("channel-binding", NotificationType::ChannelBinding, false),
        ] {
            let route = Route::of(path).unwrap();
            assert_eq!((route.kind, route.owner.is_some()), (kind, owner), "{path}");
        }
        for path in [
            "",
            "/",
            "/Booking",
            "/booking/ABCDEF0123",
            "/booking/012345678",
            "/x",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}
