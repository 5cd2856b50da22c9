//! Tests of `receiver` and `admin`: the real server over TCP, a store written here.
//!
//! Oracles: the design's table of answers, spelled out; signatures by aws-lc-rs (the code under
//! test uses `RustCrypto`), by Python's standard library and by `openssl`; requests and answers as raw
//! bytes, with no HTTP library between.

mod answers;
mod crowd;
mod foreign;
mod hostile;
mod keys;
pub mod rig;
mod transport;
