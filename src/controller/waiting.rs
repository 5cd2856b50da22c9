//! What the operator still waits for, for `/readyz`.
//!
//! Owns: the list, by phrase and namespace, and what of it is forbidden: that keeps the operator from
//! being ready, but not from working where it may. Never here: what is done about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

type Item = (&'static str, Option<String>);

/// Why it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It has been asked for.
    Asked,
    /// The API server says that we may not have it.
    Forbidden,
}

/// The list. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waiting(Arc<watch::Sender<BTreeMap<Item, Why>>>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Waiting {
    /// From now on waited for.
    pub fn begin(&self, what: &'static str, namespace: Option<&str>) {
        self.set(what, namespace, Why::Asked);
    }

    /// It is there.
    pub fn done(&self, what: &'static str, namespace: Option<&str>) {
        self.0
            .send_modify(|all| _ = all.remove(&item(what, namespace)));
    }

    /// We may not have it. Nothing changes if it was there before: it may be old, but not unknown.
    pub fn forbidden(&self, what: &'static str, namespace: Option<&str>) {
        if self.0.borrow().contains_key(&item(what, namespace)) {
            self.set(what, namespace, Why::Forbidden);
        }
    }

    fn set(&self, what: &'static str, namespace: Option<&str>, why: Why) {
        self.0
            .send_modify(|all| _ = all.insert(item(what, namespace), why));
    }

    /// Returns when nothing is waited for but what is forbidden.
    pub async fn listed(&self) {
        let mut all = self.0.subscribe();
        let there = |all: &BTreeMap<Item, Why>| all.values().all(|why| *why == Why::Forbidden);
        // The sender lives in `self`.
        let _ = all.wait_for(there).await;
    }

    /// One phrase each.
    pub fn phrases(&self) -> Vec<String> {
        let all = self.0.borrow();
        all.iter()
            .map(|((what, namespace), why)| {
                let place = namespace.as_ref();
                let place = place.map_or_else(String::new, |name| format!(" in namespace {name}"));
                let why = match why {
                    Why::Asked => "",
                    Why::Forbidden => " (forbidden: grant this operator its rights there)",
                };
                format!("{what}{place}{why}")
            })
            .collect()
    }
}

fn item(what: &'static str, namespace: Option<&str>) -> Item {
    (what, namespace.map(str::to_owned))
}
