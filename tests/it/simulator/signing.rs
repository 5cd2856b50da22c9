//! The reference's vectors, positive and negative.

use bellhop::simulator::{Scheme, sum};

const KEY: &str = "demo-security-key-0001";
const TOKEN: &str = "0f3c2b7e9a514d6c";
const TIME: i64 = 1_735_689_600;

#[test]
fn hmac_sums_are_those_of_the_reference() {
    for (key, time, token, expected) in [
        (
            KEY,
            TIME,
            TOKEN,
            "67b1f7eb22debe0c1dd6619ab2c02920532e47284b63332b29918d73be87bf03",
        ),
        (
            "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
            1_767_225_599,
            "5c7e1a90-4d2b-4f11-8e0c-6a2f3b9d7c55",
            "ab7ef46e6ce86adbce9734f8c6fb85604c392effd603e2a7f1b49bfdfaf0d7e6",
        ),
        (
            "k",
            0,
            "",
            "b44d10ba62abf73965e6b4baf77752ad92b11163e84e0e7f576105023c361523",
        ),
        (
            "clé-ünïcode",
            1_700_000_000,
            "tökén",
            "bad1b159b5459e992154ea39a8226d48490476cbaf692ee45bc86d8bce465315",
        ),
    ] {
        assert_eq!(sum(Scheme::HmacSha256, key, time, token), expected);
    }
}

#[test]
fn the_mistakes_of_the_reference_are_not_made() {
    let made = sum(Scheme::HmacSha256, KEY, TIME, TOKEN);
    for mistake in [
        "75f1d1badac94c5debebc83bbffdeabe9cdde343b583181dd6df70fb83423ab3",
        "917c8e4104aca7a29a5f58b18f8c690660cc5c77db9c8c2f2f14734d66d88b42",
        "ce1927e9fbc9433f553e1a366f3dd1b80b399be6776526df701f93a520742b3e",
    ] {
        assert_ne!(made, mistake);
    }
    // The third one is this formula over milliseconds: the mistake is the caller's to avoid.
    assert_eq!(
        sum(Scheme::HmacSha256, KEY, TIME * 1000, TOKEN),
        "ce1927e9fbc9433f553e1a366f3dd1b80b399be6776526df701f93a520742b3e"
    );
}

#[test]
fn md5_layouts_are_those_of_the_reference() {
    for (scheme, expected) in [
        (Scheme::Md5A, "a594fda411925f7768aaadc5fe80e198"),
        (Scheme::Md5B, "c995c82029db7834cf4175d655c68c17"),
        (Scheme::Md5C, "80b2dbb5a9cffb03ef30a1b4de898403"),
        (Scheme::Md5D, "1b6ffbc0be3932efb27b27e0b260aef4"),
        (Scheme::Md5E, "c2a01c5e8a0fb042b07c5871e6c298e6"),
        (Scheme::Md5F, "f468b95e927b26b45f46a575c70aab5c"),
        (Scheme::Md5G, "f2e2fb29d098b6cca4cedfae51d0c4fd"),
    ] {
        assert_eq!(sum(scheme, KEY, TIME, TOKEN), expected, "{scheme:?}");
    }
}
