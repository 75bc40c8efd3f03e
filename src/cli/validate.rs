//! `anomalyd validate`: everything that is wrong with configuration files, or what they mean.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::components;
use crate::config::{self, Loaded};
use crate::pipeline::{ComponentId, Machine, Plan};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ValidateArgs {
    /// A daemon file; the pipeline files that it names are checked with it.
    #[arg(long, short, value_name = "FILE", required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// Also print the files with all variables resolved and all secrets redacted.
    #[arg(long)]
    print: bool,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd validate --config config/production.yml
  anomalyd validate --config config/*.yml --print

Variables of the environment that the files use (`${env:NAME}`) must be set.";

pub(super) fn run(arguments: &ValidateArgs) -> ExitCode {
    let mut wrong = 0;
    let mut out = String::new();
    for path in &arguments.config {
        match config::load(path, &super::process_environment, components::FACTORIES) {
            Ok(loaded) => out.push_str(&report(path, &loaded, arguments.print)),
            Err(diagnostics) => {
                wrong += diagnostics.len();
                // The stream takes the colours out where they are not wanted.
                super::tell(&diagnostics.render(true));
                super::tell("\n");
            }
        }
    }
    let printed = super::print(&out);
    if wrong == 0 {
        return printed;
    }
    super::tell(&format!("{wrong} {}\n", if wrong == 1 { "error" } else { "errors" }));
    ExitCode::from(super::CONFIGURATION_ERROR)
}

/// What a configuration that can be used means.
fn report(path: &std::path::Path, loaded: &Loaded, print: bool) -> String {
    let mut out = String::new();
    if print {
        for (file, yaml) in &loaded.resolved {
            let _ = write!(out, "# {}\n{yaml}\n", file.display());
        }
    }
    for plan in &loaded.plans {
        environment(&mut out, plan);
    }
    let room = Machine::default().room();
    let _ = writeln!(out, "memory: {}\n", super::memory::line(&loaded.daemon, room));
    let fits = super::memory::notes(loaded, room);
    let notes: Vec<String> = loaded.notes.iter().map(ToString::to_string).chain(fits).collect();
    for note in &notes {
        let _ = writeln!(out, "note: {note}");
    }
    if !notes.is_empty() {
        out.push('\n');
    }
    let environments = loaded.plans.len();
    let plural = if environments == 1 { "environment" } else { "environments" };
    let _ = writeln!(out, "{} is valid: {environments} {plural}", path.display());
    out
}

fn environment(out: &mut String, plan: &Plan) {
    let default = if plan.spec.default { " (default)" } else { "" };
    let _ = writeln!(out, "environment {}{default}", plan.spec.environment);
    let width = plan.spec.pipelines.keys().map(String::len).max().unwrap_or_default();
    for (name, pipeline) in &plan.spec.pipelines {
        let stages = [&pipeline.receivers, &pipeline.processors, &pipeline.exporters];
        let stages = stages
            .into_iter()
            .filter(|ids| !ids.is_empty())
            .map(|ids| ids.iter().map(ComponentId::to_string).collect::<Vec<_>>().join(", "));
        let _ = writeln!(out, "  {name:width$}  {}", stages.collect::<Vec<_>>().join(" -> "));
    }
    out.push_str("  acknowledgements\n");
    let mut told = BTreeSet::new();
    for used in &plan.used {
        let class = used.factory.class();
        if told.insert((class, used.factory.kind)) {
            let _ = writeln!(out, "    {} {}: {}", class.as_str(), used.factory.kind, used.factory.acknowledgement);
        }
    }
    out.push('\n');
}
