//! Tests of `api`.

use bellhop::api::crd;

#[test]
fn the_committed_crd_and_reference_are_fresh() {
    for (file, made, refresh) in [
        (
            "crds/bellhop.dev_webhooksubscriptions.yaml",
            crd::crd_yaml(),
            crd::REFRESH_CRD,
        ),
        ("docs/resource.md", crd::reference(), crd::REFRESH_REFERENCE),
    ] {
        if std::env::var_os("BELLHOP_REFRESH").is_some() {
            std::fs::write(file, &made).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(committed == made, "{file} is stale; run: {refresh}");
    }
}
