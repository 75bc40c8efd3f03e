//! What must hold for every input from outside, whatever its bytes.
//!
//! A target reads one kind of input with the daemon's own code and panics where a promise about it is broken: no
//! panic, memory bounded by the input's size, the same input read the same way again, and what each target says of
//! itself. Two engines drive them: libFuzzer (`engine/`, `scripts/fuzz`) looks for inputs that run new code, and a
//! seeded mutator ([`mutate`]) tries the corpus and many inputs like it within the normal tests.

mod batch;
mod config;
pub mod corpus;
mod elasticsearch;
mod files;
mod memory;
pub mod mutate;
mod otlp;
mod otlp_json;
mod storage;

/// One kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its folder below `corpus/`.
    pub name: &'static str,
    /// Reads one input.
    ///
    /// # Panics
    /// When a promise about it is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "otlp_protobuf", run: otlp::protobuf },
    Target { name: "otlp_json", run: otlp::json },
    Target { name: "otlp_grpc", run: otlp::grpc },
    Target { name: "elasticsearch_search", run: elasticsearch::search },
    Target { name: "elasticsearch_bulk", run: elasticsearch::bulk },
    Target { name: "elasticsearch_error", run: elasticsearch::error },
    Target { name: "config", run: config::run },
    Target { name: "log", run: storage::log },
    Target { name: "checkpoint", run: storage::checkpoint },
    Target { name: "journal", run: storage::journal },
];

/// The target called `name`.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
