//! Files become checked configuration.

mod scalars;

pub use scalars::{ByteSize, Duration, Endpoint, Secret};
