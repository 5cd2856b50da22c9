//! The keys of the account: replaced, read again, missing.

use super::*;

fn other_credentials() -> Credentials {
    Credentials {
        api_key: Secret::new("another-key"),
        api_secret: Secret::new("another-secret"),
    }
}

#[tokio::test]
async fn replaced_credentials_are_used_and_told_once() {
    let server = Server::always(200, r#"{"supplier":{"id":"s1"}}"#).await;
    let parts = parts(&server, "/v1.3", ClientSettings::default());
    let client = client(&parts);
    one(client.read(&supplier("s1")).await);
    assert!(!client.reload_credentials().await);
    parts.credentials.replace(other_credentials()).unwrap();
    one(client.read(&supplier("s1")).await);
    assert!(client.reload_credentials().await);
    assert!(!client.reload_credentials().await);
    let keys: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.header("x-api-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys, [KEY, "another-key"]);
}

#[tokio::test]
async fn a_mounted_secret_that_changes_is_read_again_before_anything_stops() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("apiKey", "old-key\n");
    write("apiSecret", SECRET);
    let server = Server::start(|_, seen| match seen.header("x-api-key") {
        Some("new-key") => json(200, r#"{"supplier":{"id":"s1"}}"#),
        _ => json(401, ""),
    })
    .await;
    let mut parts = parts(&server, "/v1.3", ClientSettings::default());
    parts.credentials = CredentialSource::folder(folder.path(), parts.clock.clone());
    let client = client(&parts);
    let error = client.read(&supplier("s1")).await.unwrap_err();
    assert_eq!(error, ReadError::Unauthorized { status: 401 });
    assert!(!client.reload_credentials().await);

    // The clock stands still, so only the refusal makes it look at the files.
    write("apiKey", "new-key");
    let error = client.read(&supplier("s1")).await.unwrap_err();
    assert_eq!(outcome(&error), Retry, "{error}");
    one(client.read(&supplier("s1")).await);
    assert!(client.reload_credentials().await);
}

#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    let server = Server::always(200, "").await;
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(&server, "/v1.3", ClientSettings::default());
    parts.credentials = CredentialSource::folder(folder.path(), parts.clock.clone());
    let error = client(&parts).read(&supplier("s1")).await.unwrap_err();
    assert!(error.to_string().contains("apiKey"), "{error}");
    assert_eq!(outcome(&error), Retry);
    assert!(server.seen().is_empty());
}
