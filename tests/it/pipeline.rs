//! Tests of `pipeline`.

mod budget;
mod in_flight;
mod model;
mod resync;
mod world;
