//! Subscriptions that an operator is still needed for. Read before it is taken away.
//!
//! Owns: finding them, by metadata alone, so that what this version cannot decode is found as well, and
//! naming the namespaces that could not be looked into.
//!
//! Never here: a write.

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use super::fleet::Key;
use crate::api::v1alpha1::WebhookSubscription;

/// Subscriptions per answer of the API server.
const PAGE: u32 = 500;

/// A subscription that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remaining {
    /// Which.
    pub key: Key,
    /// Whether it is being deleted, and waits for the operator.
    pub deleting: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Subscriptions that are there.
    pub left: Vec<Remaining>,
    /// Namespaces that nobody may look into: a right is missing, or the namespace is gone, and the
    /// right with it.
    pub forbidden: Vec<String>,
}

/// All subscriptions of some namespaces, or of the whole cluster if none is named; none where the
/// resource itself is not there.
///
/// # Errors
/// What the API server said.
pub async fn remaining(client: &Client, namespaces: &[String]) -> Result<Found, kube::Error> {
    let mut found = Found::default();
    if namespaces.is_empty() {
        found.left = list(&Api::all(client.clone())).await?;
    }
    for namespace in namespaces {
        match list(&Api::namespaced(client.clone(), namespace)).await {
            Ok(left) => found.left.extend(left),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                found.forbidden.push(namespace.clone());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

async fn list(api: &Api<WebhookSubscription>) -> Result<Vec<Remaining>, kube::Error> {
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list_metadata(&params).await {
            Ok(page) => page,
            // No such resource: nothing can be left of it.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(found),
            Err(error) => return Err(error),
        };
        let next = page.metadata.continue_.unwrap_or_default();
        found.extend(page.items.into_iter().map(|object| Remaining {
            key: Key {
                namespace: object.namespace().unwrap_or_default(),
                name: object.name_any(),
            },
            deleting: object.metadata.deletion_timestamp.is_some(),
        }));
        if next.is_empty() {
            return Ok(found);
        }
        params = params.continue_token(&next);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A client of a server that gives these answers, and what it was asked.
    fn scripted(answers: Vec<(u16, Value)>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let service = {
            let asked = asked.clone();
            tower::service_fn(move |request: Request<Body>| {
                asked
                    .lock()
                    .expect("no panic")
                    .push(request.uri().to_string());
                let next = answers.lock().expect("no panic").next();
                let (status, body) = next.expect("an answer for each request");
                let answer = Response::builder()
                    .status(status)
                    .body(Body::from(body.to_string().into_bytes()));
                async move { Ok::<_, Infallible>(answer.expect("an answer")) }
            })
        };
        (Client::new(service, "default"), asked)
    }

    fn page(next: &str, names: &[&str]) -> (u16, Value) {
        let item = |name: &&str| {
            json!({
                "apiVersion": "meta.k8s.io/v1",
                "kind": "PartialObjectMetadata",
                "metadata": { "name": name, "namespace": "shop" },
            })
        };
        let items: Vec<Value> = names.iter().map(item).collect();
        let list = json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadataList",
            "metadata": { "continue": next },
            "items": items,
        });
        (200, list)
    }

    fn names(found: &Found) -> Vec<&str> {
        let left = found.left.iter();
        left.map(|one| one.key.name.as_str()).collect()
    }

    fn status(code: u16, reason: &str) -> (u16, Value) {
        let body = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": code,
        });
        (code, body)
    }

    #[tokio::test]
    async fn every_page_of_every_namespace_is_read() {
        let (client, asked) = scripted(vec![page("more", &["a"]), page("", &["b"]), page("", &[])]);
        let namespaces = ["shop".to_owned(), "other".to_owned()];
        let found = remaining(&client, &namespaces).await.expect("a list");
        assert_eq!(names(&found), ["a", "b"]);
        let asked = asked.lock().expect("no panic").clone();
        assert!(asked[1].contains("/namespaces/shop/") && asked[1].contains("continue=more"));
        assert!(asked[2].contains("/namespaces/other/") && !asked[2].contains("continue"));
    }

    #[tokio::test]
    async fn without_the_resource_nothing_is_left_and_any_other_trouble_is_told() {
        let (client, _) = scripted(vec![status(404, "NotFound")]);
        let found = remaining(&client, &[]).await.expect("nothing");
        assert_eq!(found, Found::default());
        let (client, _) = scripted(vec![status(403, "Forbidden")]);
        assert!(remaining(&client, &[]).await.is_err());
    }

    #[tokio::test]
    async fn a_namespace_that_nobody_may_look_into_is_named_and_the_others_are_read() {
        let (client, _) = scripted(vec![status(403, "Forbidden"), page("", &["a"])]);
        let namespaces = ["gone".to_owned(), "shop".to_owned()];
        let found = remaining(&client, &namespaces).await.expect("a list");
        assert_eq!(found.forbidden, ["gone"]);
        assert_eq!(names(&found), ["a"]);
        let (client, _) = scripted(vec![status(500, "InternalError")]);
        assert!(remaining(&client, &namespaces).await.is_err());
    }
}
