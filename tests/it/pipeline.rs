//! Tests of `pipeline`.

mod model;
