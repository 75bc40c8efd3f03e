//! The command line: see [`anomalyd::cli`].

/// After a peak the memory limit is of use only if what is freed goes back to the system. Measured with batches that one
/// thread makes and another frees, 160 MiB that stay and a peak of 640 MiB: a second after it glibc still held 635 MiB,
/// jemalloc 500 to 540 and mimalloc 130, and work took half the time it took with glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    anomalyd::cli::main()
}
