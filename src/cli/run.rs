//! `anomalyd run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{components, config};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// The daemon file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd run --config config/development.yml";

pub(super) fn run(arguments: &RunArgs) -> ExitCode {
    let loaded = match config::load(&arguments.config, &super::process_environment, components::FACTORIES) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            super::tell(&diagnostics.render(true));
            return ExitCode::from(super::CONFIGURATION_ERROR);
        }
    };
    for note in &loaded.notes {
        super::tell(&format!("note: {note}\n"));
    }
    super::tell("error: running is not built yet\n");
    ExitCode::FAILURE
}
