//! What gives something out.

pub mod console;
pub mod elasticsearch;
pub mod file;
