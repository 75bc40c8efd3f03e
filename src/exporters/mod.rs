//! What gives something out.

pub mod console;
