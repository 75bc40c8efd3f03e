//! The command line, one file per command.

mod demo;

/// Reads the arguments, runs the command, and says how it ended.
#[must_use]
pub fn main() -> std::process::ExitCode {
    use clap::Parser as _;
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
    }
}

#[derive(Debug, clap::Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Demo(demo::Demo),
}
