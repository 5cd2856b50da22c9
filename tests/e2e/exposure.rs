//! The ways from the world to a receiver, as the real API server and the real CRDs of the Gateway
//! API take them. No controller of either runs here: that traffic flows is not shown.

use serde_json::json;

use crate::kubectl::eventually;
use crate::shop::{NAME, Shop};
use crate::world::World;

pub fn ingress_and_http_route(world: &World) {
    let _provider = world.provider();
    world.bring_gateway_api();
    let shop = Shop::open(world, "exposure");
    shop.subscribe(|object| {
        object["spec"]["exposure"] = json!({ "ingress": { "className": "nginx" } });
    });
    let there = |what: &'static str, wanted: bool| {
        eventually("the objects are as the spec says", 60, || {
            let is = shop.has(&format!("{what} {NAME}"));
            if is == wanted {
                Ok(())
            } else {
                Err(format!("{what}: {is}"))
            }
        });
    };
    there("ingress", true);
    let ingress = shop.get(&format!("ingress {NAME}"));
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
    assert_eq!(
        backend,
        &json!({ "name": NAME, "port": { "number": 8080 } })
    );

    shop.patch(&json!({ "spec": { "exposure": {
        "ingress": null, "httpRoute": { "parentRefs": [{ "name": "public" }] },
    } } }));
    there("httproutes.gateway.networking.k8s.io", true);
    there("ingress", false);
    let route = shop.get(&format!("httproutes.gateway.networking.k8s.io {NAME}"));
    let rule = &route["spec"]["rules"][0];
    assert_eq!(rule["backendRefs"][0]["name"], NAME);
    assert_eq!(rule["backendRefs"][0]["port"], 8080);
    assert_eq!(
        rule["matches"][0]["path"],
        json!({ "type": "PathPrefix", "value": "/redeam" })
    );

    shop.patch(&json!({ "spec": { "exposure": null } }));
    there("httproutes.gateway.networking.k8s.io", false);
    shop.unsubscribe();
    shop.close();
}
