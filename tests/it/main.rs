//! The behaviour of Bellhop through its public surfaces. One binary: one link.
//! Each module says what its oracle is; none of them uses the code under test as its own oracle.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod ask;
mod charts;
mod cluster;
mod durability;
mod flags;
mod image;
mod pipeline;
mod probe;
mod process;
mod promtool;
mod provider;
mod proxies;
mod publish;
mod receiver;
mod registration;
mod run;
mod simulator;
mod skip;
mod state;
mod system;
