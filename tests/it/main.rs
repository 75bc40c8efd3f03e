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

mod backtest;
mod bad_cluster;
mod bad_input;
mod borders;
mod collector_relay;
mod command_line;
mod contract;
mod demo;
mod disk;
mod elasticsearch_exporter;
mod elasticsearch_receiver;
mod environments;
mod load;
mod oracle;
mod outbox;
mod own_telemetry;
mod quiet_series;
mod reload;
mod restart;
mod same_series;
mod servers;
mod start_stop;
mod support;
