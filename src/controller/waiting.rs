//! What the operator still waits for, for `/readyz`.
//!
//! Owns: the list, by phrase and namespace. Never here: what is done about it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

type Item = (&'static str, Option<String>);

/// The list. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waiting(Arc<watch::Sender<BTreeSet<Item>>>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }
}

impl Waiting {
    /// From now on waited for.
    pub fn begin(&self, what: &'static str, namespace: Option<&str>) {
        self.0
            .send_modify(|all| _ = all.insert((what, namespace.map(str::to_owned))));
    }

    /// It is there.
    pub fn done(&self, what: &'static str, namespace: Option<&str>) {
        self.0
            .send_modify(|all| _ = all.remove(&(what, namespace.map(str::to_owned))));
    }

    /// Returns when nothing is waited for.
    pub async fn listed(&self) {
        let mut all = self.0.subscribe();
        // The sender lives in `self`.
        let _ = all.wait_for(BTreeSet::is_empty).await;
    }

    /// One phrase each.
    pub fn phrases(&self) -> Vec<String> {
        let all = self.0.borrow();
        all.iter()
            .map(|(what, namespace)| match namespace {
                Some(namespace) => format!("{what} in namespace {namespace}"),
                None => (*what).to_owned(),
            })
            .collect()
    }
}
