//! What of a public URL the ways to it route by: its host and its path.

use super::Blueprint;

pub(super) fn path(plan: &Blueprint<'_>) -> String {
    let path = &plan.config.process.base_path;
    if path.is_empty() { "/" } else { path }.to_owned()
}

/// The name in a URL; `None` for an address, which neither object can route by.
pub(super) fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let name = authority.split(':').next().unwrap_or_default();
    let address = authority.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    (!address).then(|| name.to_ascii_lowercase())
}
