//! Helm's own linter, and checkov with the exceptions that tests/charts/checkov.yaml explains.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Helm, cases, fine};
use crate::cluster::tools;

#[test]
fn helm_finds_no_fault() {
    let Some(helm) = Helm::find() else {
        return;
    };
    fine(helm.run(["lint", "--strict", "charts/bellhop-crds"]));
    for (name, values) in cases() {
        let mut arguments = vec!["lint", "--strict", "charts/bellhop"];
        let values = values.as_ref().map(|path| path.to_str().unwrap());
        arguments.extend(values.into_iter().flat_map(|path| ["--values", path]));
        println!("{name}");
        fine(helm.run(arguments));
    }
}

/// What is asked of pods that go on, and the pods of hooks do not: they end by themselves within two
/// minutes and listen to nothing. Probes, and a NetworkPolicy for what comes in.
const OF_PODS_THAT_GO_ON: [&str; 3] = ["CKV_K8S_8 ", "CKV_K8S_9 ", "CKV2_K8S_6 "];

/// What checkov finds fault with in the files of a folder, with where: `CKV_K8S_20 Deployment.…`.
fn faults(checkov: &Path, folder: &Path) -> BTreeSet<String> {
    let mut command = Command::new(checkov);
    command.args(["--config-file", "tests/charts/checkov.yaml"]);
    command.args(["--output", "json", "--soft-fail", "--directory"]);
    let said = fine(command.arg(folder).output().unwrap());
    let report: Value = serde_json::from_str(&said).unwrap();
    let results = &report["results"];
    assert_eq!(
        results["parsing_errors"].as_array().unwrap().len(),
        0,
        "{said}"
    );
    assert!(
        report["summary"]["passed"].as_u64().unwrap() > 100,
        "{said}"
    );
    let failed = results["failed_checks"].as_array().unwrap().iter();
    let text = |check: &Value| {
        let word = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        format!(
            "{} {} {}",
            word("check_id"),
            word("resource"),
            word("check_name")
        )
    };
    let of_hook = |fault: &String| {
        let check = OF_PODS_THAT_GO_ON
            .iter()
            .any(|check| fault.starts_with(check));
        check && (fault.contains("-test ") || fault.contains("-uninstall-check"))
    };
    failed.map(text).filter(|fault| !of_hook(fault)).collect()
}

/// checkov passes hidden folders by, as temporary ones are.
fn visible_folder() -> tempfile::TempDir {
    let mut folder = tempfile::Builder::new();
    folder.prefix("bellhop-").tempdir().unwrap()
}

#[test]
fn a_security_linter_finds_nothing_but_what_is_explained() {
    let (Some(helm), Some(checkov)) = (Helm::find(), tools::find("../checkov/bin/checkov")) else {
        return;
    };
    let folder = visible_folder();
    for (name, values) in cases() {
        let path = folder.path().join(format!("{name}.yaml"));
        std::fs::write(path, helm.rendered(values.as_deref())).unwrap();
    }
    let found = faults(&checkov, folder.path());
    assert!(found.is_empty(), "{found:#?}");

    // It would see: a container that may write to its root, may gain privileges, or runs as root.
    let mut rendered = helm.rendered(None);
    for (right, wrong) in [
        (
            "readOnlyRootFilesystem: true",
            "readOnlyRootFilesystem: false",
        ),
        ("runAsNonRoot: true", "runAsNonRoot: false"),
        ("runAsUser: 65532", "runAsUser: 0"),
        (
            "allowPrivilegeEscalation: false",
            "allowPrivilegeEscalation: true",
        ),
    ] {
        assert!(rendered.contains(right));
        rendered = rendered.replace(right, wrong);
    }
    let folder = visible_folder();
    std::fs::write(folder.path().join("wrong.yaml"), rendered).unwrap();
    let found = faults(&checkov, folder.path());
    for check in ["CKV_K8S_20", "CKV_K8S_22", "CKV_K8S_23"] {
        assert!(
            found
                .iter()
                .any(|fault| fault.starts_with(&format!("{check} Deployment"))),
            "{check}: {found:#?}"
        );
    }
}
