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
