//! libFuzzer around one target of the `fuzz` package, the one that `FUZZ_TARGET` names. Built and run by `scripts/fuzz`.
#![no_main]

use std::sync::LazyLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names = || fuzz::TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET is `{name}`: expected one of {}", names()))
});

fuzz_target!(|input: &[u8]| (TARGET.run)(input));
