//! Publishing, through its public surfaces: the feed over HTTP, deliverers against scripted sinks,
//! the http sink against a scripted server. Oracles: what was put into the store; what sinks wrote
//! down; the CloudEvents SDK for Python.

mod deliver;
mod document;
mod feed;
mod foreign;
mod http;
mod memory;
mod time;
