//! `load`: see the library.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use load::options::Options;
use load::{Error, checkpoint, compare, measure, overload, recovery};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok((text, passed)) => {
            let written = anstream::stdout().write_all(text.as_bytes());
            if passed && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(anstream::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(String, bool), Error> {
    let recipe = options.recipe()?;
    let shown = |text: String, json: serde_json::Value| if options.json { format!("{json:#}\n") } else { text };
    if let (Some(recipe), Some([a, b])) = (&recipe, options.compare.as_deref()) {
        let comparison = compare::compare(options, recipe, [Path::new(a), Path::new(b)], options.rounds).await?;
        return Ok((shown(comparison.text(), comparison.json()), comparison.passed()));
    }
    if let (Some(recipe), Some(times)) = (&recipe, options.overload) {
        let overload = overload::overload(options, recipe, times).await?;
        return Ok((shown(overload.text(), overload.json()), overload.report.passed()));
    }
    if let (Some(recipe), true) = (&recipe, options.recovery) {
        let recovery = recovery::recovery(options, recipe).await?;
        return Ok((shown(recovery.text(), recovery.json()), recovery.passed()));
    }
    if let (Some(recipe), Some(interval)) = (&recipe, &options.checkpoint) {
        let cost = checkpoint::checkpoint(options, recipe, interval).await?;
        return Ok((shown(cost.text(), cost.json()), cost.passed()));
    }
    let report = measure(options, recipe.as_ref()).await?;
    Ok((shown(report.text(), report.json()), report.passed()))
}
