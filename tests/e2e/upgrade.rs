//! Another version of Bellhop over a running one. It is the same program under another name: what
//! is shown is that operator and receivers roll and lose nothing, not that a newer store opens. And
//! another definition, by the chart of its own.

use std::process::Command;

use crate::account;
use crate::cluster::project;
use crate::kubectl::{eventually, run};
use crate::load::through_an_outage;
use crate::operator;
use crate::shop::{NAME, Shop};
use crate::skip;
use crate::world::World;

pub fn another_image_rolls_everything(world: &World) {
    let Some(next) = world.cluster.next_image() else {
        return skip::without("E2E_NEXT_IMAGE names no second image");
    };
    let provider = world.provider();
    let shop = Shop::open(world, "upgrade");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);
    change_definition(world);
    let uid = shop.receiver()["metadata"]["uid"].clone();
    through_an_outage("upgrade", &provider, &shop, || {
        operator::install(&world.cluster, &world.authority, &next);
        shop.until_replaced(&uid, 60);
    });
    eventually("the receiver runs the next image", 30, || {
        let image = shop.receiver()["spec"]["containers"][0]["image"].clone();
        if image == next {
            Ok(())
        } else {
            Err(image.to_string())
        }
    });
    account::mend(&provider, &shop);
    operator::install(&world.cluster, &world.authority, &world.cluster.image);
    shop.unsubscribe();
    shop.close();
}

/// One that differs from the one that is there comes by `helm upgrade`, before the operator's own; the
/// next one takes it back.
fn change_definition(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let (chart, from) = (folder.path().join("crds"), project("charts/bellhop-crds"));
    let mut copy = Command::new("cp");
    run(copy.arg("-r").args([&from, &chart]), "").fine();
    let template = chart.join("templates/bellhop.dev_webhooksubscriptions.yaml");
    let text = std::fs::read_to_string(&template).unwrap();
    let changed = text.replacen("    - whs\n", "    - whs\n    - nextname\n", 1);
    assert_ne!(text, changed);
    std::fs::write(&template, changed).unwrap();
    let chart = chart.to_str().unwrap();
    let at = ["--namespace", operator::NAMESPACE];
    let upgrade = [&["upgrade", "bellhop-crds", chart], &at[..]].concat();
    operator::helm(&world.cluster, &upgrade).fine();
    eventually("objects have the new definition's name", 30, || {
        let said = world.cluster.kubectl.say("get nextname --all-namespaces");
        let found = said.well && said.out.contains(NAME);
        if found { Ok(()) } else { Err(said.err) }
    });
}
