//! The writes to the subscription itself: finalizer and status. The owned Secret is written by
//! [`super::vault`].
//!
//! Owns: their form. A finalizer comes and goes by JSON patch with a test of what is there, so that
//! another one's finalizer is never lost; the status is a merge patch of its own subresource. Never
//! an apply on the subscription: its spec is the user's.
//!
//! Never here: a decision whether to write.

use json_patch::Patch as JsonPatch;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::fleet::Key;
use super::owned::{FINALIZER, MANAGER};
use crate::api::v1alpha1::WebhookSubscription;

/// Whether our finalizer is there.
pub fn has_finalizer(metadata: &ObjectMeta) -> bool {
    let all = metadata.finalizers.iter().flatten();
    all.into_iter().any(|one| one == FINALIZER)
}

/// The patch that adds our finalizer to what was read; `None` when it is there.
pub fn adding(metadata: &ObjectMeta) -> Option<JsonPatch> {
    if has_finalizer(metadata) {
        return None;
    }
    let mut steps = same_object(metadata);
    match metadata.finalizers.as_deref() {
        None | Some([]) => {
            steps.push(json!({ "op": "test", "path": "/metadata/finalizers", "value": null }));
            steps
                .push(json!({ "op": "add", "path": "/metadata/finalizers", "value": [FINALIZER] }));
        }
        Some(others) => {
            steps.push(json!({ "op": "test", "path": "/metadata/finalizers", "value": others }));
            steps
                .push(json!({ "op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER }));
        }
    }
    Some(patch(steps))
}

/// The patch that takes our finalizer off what was read; `None` when it is not there.
pub fn removing(metadata: &ObjectMeta) -> Option<JsonPatch> {
    let mut all = metadata.finalizers.iter().flatten();
    let at = all.position(|one| one == FINALIZER)?;
    let path = format!("/metadata/finalizers/{at}");
    let mut steps = same_object(metadata);
    steps.push(json!({ "op": "test", "path": path, "value": FINALIZER }));
    steps.push(json!({ "op": "remove", "path": path }));
    Some(patch(steps))
}

/// Another object of the same name is not touched.
fn same_object(metadata: &ObjectMeta) -> Vec<Value> {
    let uid = metadata.uid.as_ref();
    uid.map(|uid| json!({ "op": "test", "path": "/metadata/uid", "value": uid }))
        .into_iter()
        .collect()
}

fn patch(steps: Vec<Value>) -> JsonPatch {
    serde_json::from_value(Value::Array(steps)).expect("written above as JSON patch")
}

/// The API of a subscription's namespace.
pub fn subscriptions(client: &Client, key: &Key) -> Api<WebhookSubscription> {
    Api::namespaced(client.clone(), &key.namespace)
}

/// Adds our finalizer, if it is not there.
///
/// # Errors
/// What the API server said; a conflict when the finalizers moved meanwhile.
pub async fn add_finalizer(
    client: &Client,
    key: &Key,
    metadata: &ObjectMeta,
) -> Result<(), kube::Error> {
    if let Some(patch) = adding(metadata) {
        let api = subscriptions(client, key);
        api.patch_metadata(&key.name, &params(), &Patch::Json::<()>(patch))
            .await?;
    }
    Ok(())
}

/// Takes our finalizer off; done as well when the object is gone.
///
/// # Errors
/// What the API server said.
pub async fn remove_finalizer(
    client: &Client,
    key: &Key,
    metadata: &ObjectMeta,
) -> Result<(), kube::Error> {
    if let Some(patch) = removing(metadata) {
        let api = subscriptions(client, key);
        let done = api
            .patch_metadata(&key.name, &params(), &Patch::Json::<()>(patch))
            .await;
        gone_is_done(done)?;
    }
    Ok(())
}

/// Lets the owned Secret go: its finalizer, then itself, so that no copy of the credentials stays
/// where nobody collects it. Done as well when it is gone.
///
/// # Errors
/// What the API server said.
pub async fn remove_secret(
    client: &Client,
    namespace: &str,
    found: &ObjectMeta,
) -> Result<(), kube::Error> {
    let secrets: Api<KubeSecret> = Api::namespaced(client.clone(), namespace);
    let name = found.name.as_deref().unwrap_or_default();
    if let Some(patch) = removing(found) {
        let done = secrets
            .patch_metadata(name, &params(), &Patch::Json::<()>(patch))
            .await;
        gone_is_done(done)?;
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: found.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match secrets.delete(name, &params).await {
        // 409: another Secret of that name, made meanwhile.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Patches the status. The version of the object that this made; `None` when it is gone.
///
/// # Errors
/// What the API server said.
pub async fn patch_status(
    client: &Client,
    key: &Key,
    status: Value,
) -> Result<Option<String>, kube::Error> {
    let patch = Patch::Merge(json!({ "status": status }));
    let api: Api<kube::core::PartialObjectMeta<WebhookSubscription>> =
        Api::namespaced(client.clone(), &key.namespace);
    // Only the metadata of the answer is of interest, and objects may be more than we can read.
    match api
        .patch_subresource("status", &key.name, &params(), &patch)
        .await
    {
        Ok(answer) => Ok(answer.metadata.resource_version),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn gone_is_done<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(finalizers: &[&str]) -> Value {
        json!({ "metadata": { "uid": "u", "finalizers": finalizers } })
    }

    fn metadata(object: &Value) -> ObjectMeta {
        serde_json::from_value(object["metadata"].clone()).expect("metadata")
    }

    #[test]
    fn others_finalizers_stay() {
        for before in [vec![], vec!["a"], vec!["a", "b"]] {
            let mut object = object(&before);
            let read = metadata(&object);
            if !before.is_empty() {
                let add = adding(&read).expect("not there");
                json_patch::patch(&mut object, &add).expect("as it was read");
                let mut all = before.clone();
                all.push(FINALIZER);
                assert_eq!(object["metadata"]["finalizers"], json!(all));
                assert_eq!(adding(&metadata(&object)), None);
                let remove = removing(&metadata(&object)).expect("there");
                json_patch::patch(&mut object, &remove).expect("as it was read");
                assert_eq!(object["metadata"]["finalizers"], json!(before));
            }
            assert_eq!(removing(&metadata(&object)), None);
        }
    }

    #[test]
    fn what_moved_meanwhile_is_not_patched() {
        let read = metadata(&object(&["a"]));
        let add = adding(&read).expect("not there");
        for mut moved in [
            object(&["b", "a"]),
            json!({ "metadata": { "uid": "other", "finalizers": ["a"] } }),
        ] {
            assert!(json_patch::patch(&mut moved, &add).is_err());
        }
        let remove = removing(&metadata(&object(&["a", FINALIZER]))).expect("there");
        let mut moved = object(&[FINALIZER, "a"]);
        assert!(json_patch::patch(&mut moved, &remove).is_err());
    }
}
