//! The Notification Registry: life of a rule, strictness, and each switch of the open questions.

use super::*;

const CB: &str = "/registry/v1/channelbindings";

fn body(url: &str) -> Value {
    json!({ "url": url, "config": { "operations": ["created"] } })
}

#[tokio::test]
async fn a_rule_of_each_type_lives_from_post_to_delete() {
    let provider = Provider::plain().await;
    let mut keys = Vec::new();
    for (segment, config) in types() {
        let path = format!("/registry/v1/{segment}");
        assert_eq!(provider.get(&path).await.status, 404);
        let first = json!({ "url": format!("https://h.example/{segment}"), "config": config });
        let put = provider.call(Method::PUT, &path, Some(first.clone())).await;
        assert_eq!(put.status, 404, "PUT is no upsert");
        assert_eq!(put.json["error"]["code"], "NOT_FOUND");

        let made = provider
            .call(Method::POST, &path, Some(first.clone()))
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!(provider.get(&path).await.json, made.json);
        assert_eq!(made.json["disabled"], false);
        assert_eq!(made.json["config"], first["config"]);
        assert!(made.json["createdOn"].as_str().unwrap().ends_with('Z'));
        let again = provider.call(Method::POST, &path, Some(first)).await;
        assert_eq!(again.status, 409);
        keys.push(made.json["securityKey"].as_str().unwrap().to_owned());

        let mut config = config;
        config["someFutureKey"] = json!({ "a": [1] });
        let second = json!({ "url": "https://h.example/b", "disabled": true, "config": config });
        let put = provider
            .call(Method::PUT, &path, Some(second.clone()))
            .await;
        assert_eq!(put.status, 200, "{}", put.text);
        for name in ["url", "disabled", "config"] {
            assert_eq!(put.json[name], second[name]);
        }
        assert_eq!(put.json["securityKey"], made.json["securityKey"]);

        let gone = provider.call(Method::DELETE, &path, None).await;
        assert_eq!((gone.status, gone.text.as_str()), (204, ""));
        assert_eq!(provider.call(Method::DELETE, &path, None).await.status, 404);
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 7, "every rule has a key of its own");
}

#[tokio::test]
async fn what_is_not_documented_is_refused() {
    let provider = Provider::plain().await;
    let operations = json!(["created"]);
    let url = "https://h.example/a";
    for (status, path, body) in [
        (400, CB, json!({ "config": { "operations": operations } })),
        (400, CB, body("http://h.example/a")),
        (400, CB, body("not a url")),
        (400, CB, json!({ "url": url, "config": {} })),
        (
            400,
            CB,
            json!({ "url": url, "config": { "operations": [] } }),
        ),
        (
            400,
            CB,
            json!({ "url": url, "config": { "operations": ["exploded"] } }),
        ),
        (
            400,
            CB,
            json!({ "url": url, "config": { "operations": "created" } }),
        ),
        (400, CB, json!({ "url": url, "config": [] })),
        (
            400,
            CB,
            json!({ "url": url, "disabled": "no", "config": { "operations": operations } }),
        ),
        (
            400,
            CB,
            json!({ "url": url, "name": "x", "config": { "operations": operations } }),
        ),
        (
            400,
            CB,
            json!({ "url": url, "securityKey": "k", "config": { "operations": operations } }),
        ),
        (
            400,
            CB,
            json!({ "url": url, "createdOn": "k", "config": { "operations": operations } }),
        ),
        (
            400,
            CB,
            json!({ "url": url, "config": { "operations": operations, "rateIDs": [1] } }),
        ),
        (400, CB, json!([])),
        (400, "/registry/v1/suppliers", body(url)),
        (
            400,
            "/registry/v1/availabilities",
            json!({ "url": url, "config": { "operations": ["updated"] } }),
        ),
        (400, "/registry/v1/channelbindings?x=1", body(url)),
        (404, "/registry/v1/channelbindings/1", body(url)),
        (404, "/registry/v1/channelbinding", body(url)),
        (404, "/registry/v1/availability", body(url)),
        (404, "/registry/v2/channelbindings", body(url)),
    ] {
        let reply = provider.call(Method::POST, path, Some(body.clone())).await;
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.text);
        assert!(reply.json["error"]["message"].is_string(), "{}", reply.text);
    }
    let reply = Provider::send(
        provider
            .request(Method::POST, CB)
            .body(body(url).to_string()),
    )
    .await;
    assert_eq!(reply.status, 400, "a body needs its content type");
    let reply = provider.call(Method::PATCH, CB, Some(body(url))).await;
    assert_eq!(reply.status, 405);
    assert_eq!(provider.get(CB).await.status, 404, "nothing was created");
}

#[tokio::test]
async fn credentials_are_asked_for_everywhere() {
    let provider = Provider::plain().await;
    for path in [CB, "/v1.3/suppliers", "/v1.2/suppliers", "/v1.3/nonsense"] {
        let url = format!("{}{path}", provider.sim.base_url());
        for headers in [
            vec![],
            vec![("x-api-key", "demo-key")],
            vec![("x-api-key", "demo-key"), ("x-api-secret", "wrong")],
        ] {
            let mut request = provider.client.get(&url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let reply = Provider::send(request).await;
            assert_eq!(reply.status, 401, "{path}");
            assert_eq!(reply.json["error"]["code"], "UNAUTHORIZED");
        }
    }
    provider.fault(&["unauthorized=true", "on=reseller"]);
    assert_eq!(provider.get(CB).await.status, 404);
    assert_eq!(provider.get("/v1.3/suppliers").await.status, 401);
}

#[tokio::test]
async fn each_switch_of_post_and_delete() {
    let provider = Provider::plain().await;
    let post = async || {
        let body = body("https://h.example/a");
        provider.call(Method::POST, CB, Some(body)).await
    };
    provider.fault(&["post-status=200", "post-body=false"]);
    let reply = post().await;
    assert_eq!((reply.status, reply.text.as_str()), (200, ""));
    let key = provider.get(CB).await.json["securityKey"].clone();

    provider.fault(&["post-existing=bad-request"]);
    assert_eq!(post().await.status, 400);
    assert_eq!(provider.get(CB).await.json["securityKey"], key);
    provider.fault(&["post-existing=replace"]);
    assert_eq!(post().await.status, 201);
    assert_ne!(provider.get(CB).await.json["securityKey"], key);

    for status in [200, 202, 204, 404] {
        provider.fault(&[&format!("delete-status={status}")]);
        let reply = provider.call(Method::DELETE, CB, None).await;
        assert_eq!(reply.status, status);
        assert_eq!(provider.get(CB).await.status, 404);
        post().await;
    }
}

#[tokio::test]
async fn each_switch_of_put_and_of_what_a_rule_may_be() {
    let provider = Provider::plain().await;
    let first =
        json!({ "url": "https://h.example/a", "config": { "operations": ["created"], "x": 1 } });
    let made = provider.call(Method::POST, CB, Some(first)).await.json;
    let second = json!({ "url": "https://h.example/a", "config": { "operations": ["updated"] } });

    provider.fault(&["put-merge=true", "put-new-key=true"]);
    let put = provider.call(Method::PUT, CB, Some(second.clone())).await;
    assert_eq!(
        put.json["config"],
        json!({ "operations": ["updated"], "x": 1 })
    );
    assert_ne!(put.json["securityKey"], made["securityKey"]);
    provider.fault(&[]);
    let put = provider.call(Method::PUT, CB, Some(second)).await;
    assert_eq!(put.json["config"], json!({ "operations": ["updated"] }));

    let mut echoed = put.json.clone();
    echoed["securityKey"] = json!("mine");
    assert_eq!(
        provider
            .call(Method::PUT, CB, Some(echoed.clone()))
            .await
            .status,
        400
    );
    provider.fault(&["ignore-read-only=true", "epoch-times=true"]);
    let reply = provider.call(Method::PUT, CB, Some(echoed)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json["securityKey"], put.json["securityKey"]);
    assert!(reply.json["createdOn"].is_u64());

    let suppliers = "/registry/v1/suppliers";
    let shared = json!({ "url": "https://h.example/a", "config": {} });
    provider.fault(&["unique-urls=true"]);
    assert_eq!(
        provider
            .call(Method::POST, suppliers, Some(shared.clone()))
            .await
            .status,
        400
    );
    provider.fault(&[]);
    assert_eq!(
        provider
            .call(Method::POST, suppliers, Some(shared))
            .await
            .status,
        201
    );
    provider.fault(&["allow-http=true", "allow-no-operations=true"]);
    let http = json!({ "url": "http://h.example/a", "config": { "operations": [] } });
    assert_eq!(provider.call(Method::PUT, CB, Some(http)).await.status, 200);
}

#[tokio::test]
async fn renamed_paths_and_the_shapes_of_errors() {
    let provider = Provider::plain().await;
    provider.fault(&["registry-paths=availability:availability"]);
    let rule = json!({ "url": "https://h.example/a", "config": {} });
    for (segment, status) in [("availabilities", 404), ("availability", 201)] {
        let path = format!("/registry/v1/{segment}");
        let reply = provider.call(Method::POST, &path, Some(rule.clone())).await;
        assert_eq!(reply.status, status);
    }
    provider.fault(&["registry-errors=flat"]);
    assert!(provider.get(CB).await.json["message"].is_string());
    provider.fault(&["registry-errors=empty"]);
    assert_eq!(provider.get(CB).await.text, "");
    provider.fault(&["registry-errors=html"]);
    let reply = provider.get(CB).await;
    assert_eq!(reply.status, 404);
    assert!(reply.text.starts_with("<!DOCTYPE html>"));
    assert!(
        reply.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
}
