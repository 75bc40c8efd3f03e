//! `anomalyd docs`: the reference of the configuration.

use std::process::ExitCode;

use crate::{components, config};

pub(super) fn run() -> ExitCode {
    super::print(&config::reference::markdown(components::FACTORIES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_repository_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == config::reference::markdown(components::FACTORIES),
            "docs/configuration.md is not what the code says; write it anew with\n\n    cargo run -- docs > docs/configuration.md\n"
        );
    }
}
