//! What ends one pipeline and begins another.

pub mod detector;
