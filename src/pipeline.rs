//! From a mark to a committed event: what to read, how, and what the answer means.

pub mod deliver;
