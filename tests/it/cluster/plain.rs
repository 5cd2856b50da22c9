//! The way without Helm, by the commands of docs/install.md. Oracle: what a real API server takes,
//! which knows the kinds, their fields and the order that namespaces and resources need.

use std::process::Command;

use serde_json::Value;

use super::plane;
use super::space::Said;

/// The commands below the heading: one for the image that is built here, one for another.
fn commands() -> Vec<String> {
    let page = std::fs::read_to_string("docs/install.md").unwrap();
    let section = page.split("\n## Without Helm\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect()
}

#[tokio::test]
async fn the_plain_yaml_is_taken_with_either_image() {
    let Some(plane) = tokio::task::spawn_blocking(plane::own).await.unwrap() else {
        return;
    };
    let kubectl = plane.kubectl();
    let folder = std::path::Path::new(kubectl.get_program())
        .parent()
        .unwrap();
    let usual = std::env::var("PATH").unwrap();
    let commands = commands();
    let version = env!("CARGO_PKG_VERSION");
    let images = [
        format!("localhost/bellhop:{version}"),
        format!("registry.example.com/bellhop:{version}"),
    ];
    assert_eq!(commands.len(), images.len(), "{commands:?}");
    for (command, image) in commands.iter().zip(images) {
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", command]);
        for (name, value) in kubectl.get_envs() {
            shell.env(name, value.unwrap());
        }
        shell.env("PATH", format!("{}:{usual}", folder.display()));
        let said = Said::of(shell, "");
        assert!(!said.err.to_lowercase().contains("warning"), "{}", said.err);
        said.fine();
        let mut get = plane.kubectl();
        get.args(["get", "--namespace=bellhop-system", "--output=json"]);
        get.arg("deployment/bellhop-operator");
        let deployment: Value = serde_json::from_str(&Said::of(get, "").fine()).unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], image, "{command}");
        let receivers = format!("--receiver-image={image}");
        let arguments = container["args"].as_array().unwrap();
        assert!(arguments.iter().any(|one| *one == receivers), "{command}");
    }
    // The resource is served.
    let mut get = plane.kubectl();
    get.args(["get", "whs", "--all-namespaces"]);
    Said::of(get, "").fine();
}
