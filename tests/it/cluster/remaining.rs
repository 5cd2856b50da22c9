//! `bellhop remaining`, which the chart asks before it is uninstalled, on the real API server.
//! Oracle: what the test has created there.

use serde_json::json;

use super::process::bellhop;
use super::rules::smallest;
use super::space::Space;

#[tokio::test]
async fn what_is_left_is_listed_and_fails() {
    let Some(space) = Space::new("remaining").await else {
        return;
    };
    let ask = || {
        let mut command = bellhop(&["remaining", "--namespaces", &space.name]);
        command.env("KUBECONFIG", &space.plane.admin);
        let ended = command.output().unwrap();
        let text = String::from_utf8(ended.stdout).unwrap();
        (ended.status.code(), text)
    };
    let (code, text) = ask();
    assert_eq!(code, Some(0), "{text}");

    let mut object = smallest("shop");
    object["metadata"]["finalizers"] = json!(["bellhop.dev/registration"]);
    space
        .kubectl_with(["apply", "-f", "-"], &object.to_string())
        .fine();
    let (code, text) = ask();
    assert_eq!(code, Some(1), "{text}");
    let name = format!("{}/shop", space.name);
    assert!(text.lines().any(|line| line.trim() == name), "{text}");
    assert!(
        text.contains(&format!(
            "kubectl delete whs --namespace {} shop",
            space.name
        )),
        "{text}"
    );

    space
        .kubectl(["delete", "whs", "shop", "--wait=false"])
        .fine();
    let (code, text) = ask();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("(being deleted)"), "{text}");

    let freed = r#"{"metadata":{"finalizers":null}}"#;
    space
        .kubectl(["patch", "whs", "shop", "--type=merge", "--patch", freed])
        .fine();
    let (code, text) = ask();
    assert_eq!(code, Some(0), "{text}");
}

/// As where the Role went with its namespace.
#[tokio::test]
async fn a_namespace_without_the_right_is_named() {
    let Some(space) = Space::new("remaining").await else {
        return;
    };
    space.kubectl(["create", "serviceaccount", "nobody"]).fine();
    let token = space.kubectl(["create", "token", "nobody"]).fine();
    let account = format!("{}-nobody", space.name);
    let kubeconfig = space.plane.kubeconfig_of_token(&account, token.trim());
    let mut command = bellhop(&["remaining", "--namespaces", &space.name]);
    command.env("KUBECONFIG", kubeconfig);
    let ended = command.output().unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{text}");
    let look = format!("kubectl get whs --namespace {}", space.name);
    assert!(text.lines().any(|line| line.trim() == look), "{text}");
}
