//! The receiver against real clients over real sockets, and both decoders against a plain reading of prost's objects.

mod columns;
mod contract;
mod environments;
mod memory;
mod reload;
mod support;
