//! The command line: see [`anomalyd::cli`].

fn main() -> std::process::ExitCode {
    anomalyd::cli::main()
}
