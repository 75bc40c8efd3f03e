//! `anomalyd schema`: JSON Schema for editors.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::{components, config};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SchemaArgs {
    /// The kind of file.
    #[arg(value_enum, default_value = "daemon")]
    file: Kind,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd schema pipeline > pipeline.schema.json

Then let the first line of pipeline files tell the editor's YAML language server:
  # yaml-language-server: $schema=pipeline.schema.json";

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// config/<deployment>.yml
    Daemon,
    /// pipelines/<environment>.yml
    Pipeline,
}

pub(super) fn run(arguments: &SchemaArgs) -> ExitCode {
    let schema = match arguments.file {
        Kind::Daemon => config::schema::daemon(),
        Kind::Pipeline => config::schema::pipeline(components::FACTORIES),
    };
    super::print(&format!("{schema:#}\n"))
}
