//! Tests of `pipeline`.

mod in_flight;
mod model;
mod resync;
