//! The command line, one file per command.

/// Reads the arguments, runs the command, and says how it ended.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
