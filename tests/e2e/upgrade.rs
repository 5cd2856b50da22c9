//! Another version of Bellhop over a running one. It is the same program under another name: what
//! is shown is that operator and receivers roll and lose nothing, not that a newer store opens.

use crate::kubectl::eventually;
use crate::load::rotate;
use crate::operator;
use crate::shop::Shop;
use crate::skip;
use crate::world::{World, check_account};

pub fn another_image_rolls_everything(world: &World) {
    let Some(next) = world.cluster.next_image() else {
        return skip::without("E2E_NEXT_IMAGE names no second image");
    };
    let provider = world.provider();
    let shop = Shop::open(world, "upgrade");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);
    let before = provider.counts();
    let uid = shop.receiver()["metadata"]["uid"].clone();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| provider.load(600, 20));
        operator::install(&world.cluster, &world.authority, &next);
        shop.until_replaced(&uid, 60);
        load.join().unwrap();
    });
    check_account("upgrade", &provider, &shop, before);
    eventually("the receiver runs the next image", 30, || {
        let image = shop.receiver()["spec"]["containers"][0]["image"].clone();
        if image == next {
            Ok(())
        } else {
            Err(image.to_string())
        }
    });
    // What was never delivered is found by a resync.
    rotate(&shop, "1");
    shop.until_equal(&provider.owed().0, 60);
    operator::install(&world.cluster, &world.authority, &world.cluster.image);
    shop.unsubscribe();
    shop.close();
}
