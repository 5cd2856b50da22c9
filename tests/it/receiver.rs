//! Tests of `receiver`.
