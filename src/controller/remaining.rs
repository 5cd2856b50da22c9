//! Subscriptions that an operator is still needed for. Read before it is taken away.
//!
//! Owns: finding them, by metadata alone, so that what this version cannot decode is found as well.
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

/// All subscriptions of some namespaces, or of the whole cluster if none is named; none where the
/// resource itself is not there.
///
/// # Errors
/// What the API server said.
pub async fn remaining(
    client: &Client,
    namespaces: &[String],
) -> Result<Vec<Remaining>, kube::Error> {
    let apis: Vec<Api<WebhookSubscription>> = if namespaces.is_empty() {
        vec![Api::all(client.clone())]
    } else {
        let of = |namespace: &String| Api::namespaced(client.clone(), namespace);
        namespaces.iter().map(of).collect()
    };
    let mut found = Vec::new();
    for api in apis {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = match api.list_metadata(&params).await {
                Ok(page) => page,
                // No such resource: nothing can be left of it.
                Err(kube::Error::Api(status)) if status.code == 404 => break,
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
                break;
            }
            params = params.continue_token(&next);
        }
    }
    Ok(found)
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

    fn names(found: &[Remaining]) -> Vec<&str> {
        found.iter().map(|one| one.key.name.as_str()).collect()
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
        let status = |code: u16, reason: &str| {
            let body = json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
                "message": reason, "reason": reason, "code": code,
            });
            (code, body)
        };
        let (client, _) = scripted(vec![status(404, "NotFound")]);
        assert_eq!(remaining(&client, &[]).await.expect("nothing"), []);
        let (client, _) = scripted(vec![status(403, "Forbidden")]);
        assert!(remaining(&client, &[]).await.is_err());
    }
}
