//! Tests of the whole: the borders inside the project, and the daemon beside real servers.
//!
//! One binary, so that it is linked once and starts every server once. `support` starts the servers; where one
//! cannot be had, the tests that need it say so and are skipped (`docs/testing.md`).
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says why where it is run"
)]

mod borders;
mod servers;
#[allow(dead_code, reason = "the tests that use the rest come with the parts they test")]
mod support;
