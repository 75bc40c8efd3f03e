//! The command line, one file per command.

mod backtest;
mod client;
mod dead_letters;
mod demo;
mod docs;
mod memory;
mod reload;
mod replay;
mod run;
mod schema;
mod score;
mod series;
mod tell;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// The configuration cannot be used: `EX_CONFIG` of `sysexits.h`. Usage errors are 2, failures while running 1.
const CONFIGURATION_ERROR: u8 = 78;

/// Learns what is normal for every service and endpoint of every environment, and says what is not.
#[derive(Parser)]
#[command(name = "anomalyd", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd demo                                      see it at work, with nothing else installed
  anomalyd validate --config config/production.yml   tell everything that is wrong with it
  anomalyd run --config config/production.yml        run it
  anomalyd reload                                    take up what has changed in its files
  anomalyd backtest --config config/production.yml --from 14d   what it would have found in the past
  anomalyd series --contains checkout                why is it quiet? what a running daemon watches
  anomalyd score cpu.csv --out scores                score values in files with the detector
  anomalyd replay --data-dir data                    what was found since the last checkpoints, once more
  anomalyd schema pipeline > pipeline.schema.json    let the editor complete pipeline files

Exit codes: 0 done, 1 failed while running, 2 wrong usage, 78 wrong configuration.";

#[derive(Subcommand)]
enum Command {
    /// Runs the daemon until it is told to stop (SIGTERM, SIGINT).
    Run(run::RunArgs),
    /// Has a running daemon read its files again and take up what has changed.
    Reload(reload::ReloadArgs),
    /// Checks configuration files and tells everything that is wrong, with line and column.
    Validate(validate::ValidateArgs),
    /// Prints the JSON Schema of a kind of configuration file, for editors.
    Schema(schema::SchemaArgs),
    Demo(demo::Demo),
    /// Runs the detection over the past: what Elasticsearch already holds, or files. Changes nothing anywhere.
    Backtest(backtest::BacktestArgs),
    /// Lets what a daemon took in happen again, from its input log, and prints what is found.
    Replay(replay::ReplayArgs),
    /// Scores values in CSV files, row by row, with what the detector knows at that row.
    Score(score::ScoreArgs),
    /// Lists what a running daemon watches, and why there is nothing to tell.
    Series(series::SeriesArgs),
    /// Tells a running daemon that an anomaly is normal.
    Feedback(tell::FeedbackArgs),
    /// Holds back findings of some series of a running daemon for a while.
    Mute(tell::MuteArgs),
    /// Ends a mute.
    Unmute(tell::UnmuteArgs),
    /// Lists what is muted by hand.
    Mutes(tell::MutesArgs),
    /// Lists findings that exporters could not deliver, or has a running daemon send them again.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Prints docs/configuration.md.
    #[command(hide = true)]
    Docs(docs::DocsArgs),
}

/// How a command writes what it has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Reads the arguments, runs the command, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Backtest(arguments) => backtest::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Series(arguments) => series::run(&arguments),
        Command::Feedback(arguments) => tell::feedback(&arguments),
        Command::Mute(arguments) => tell::mute(&arguments),
        Command::Unmute(arguments) => tell::unmute(&arguments),
        Command::Mutes(arguments) => tell::mutes(&arguments),
        Command::DeadLetters(arguments) => dead_letters::run(&arguments),
        Command::Docs(arguments) => docs::run(&arguments),
    }
}

/// The environment variables of the process, for `${env:NAME}`.
fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Writes `text` to stdout; a reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match anstream::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes `text` to stderr, in colours if that is a terminal that wants them.
fn tell(text: &str) {
    use std::io::Write as _;
    // There is nowhere left to say that stderr is gone.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent_and_the_help_teaches() {
        super::Arguments::command().debug_assert();
        insta::assert_snapshot!(super::Arguments::command().term_width(100).render_help());
    }
}
