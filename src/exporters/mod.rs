//! What gives something out.

pub mod elasticsearch;
pub mod file;
