//! anomalyd learns what is normal for every service and endpoint of every environment, and says what is not.
//!
//! `ARCHITECTURE.md` is the map of this crate.

pub mod backtest;
pub mod cli;
pub mod components;
pub mod config;
pub mod connectors;
pub mod daemon;
pub mod demo;
pub mod elasticsearch;
pub mod exporters;
pub mod model;
pub mod pipeline;
pub mod processors;
pub mod receivers;
pub mod server;
pub mod storage;
pub mod telemetry;
mod text;
