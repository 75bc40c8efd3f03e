//! `anomalyd docs`: what the repository keeps of the configuration: its reference and its schemas.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::{components, config};

#[derive(Args)]
pub(super) struct DocsArgs {
    /// Write the reference and both schemas into this folder instead of printing the reference.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

/// The files below `docs/` that are written from the code.
fn files() -> [(&'static str, String); 3] {
    [
        ("configuration.md", config::reference::markdown(components::FACTORIES)),
        ("schema/daemon.schema.json", format!("{:#}\n", config::schema::daemon())),
        ("schema/pipeline.schema.json", format!("{:#}\n", config::schema::pipeline(components::FACTORIES))),
    ]
}

pub(super) fn run(arguments: &DocsArgs) -> ExitCode {
    let Some(folder) = &arguments.write else {
        return super::print(&config::reference::markdown(components::FACTORIES));
    };
    for (name, content) in files() {
        if let Err(error) = write(&folder.join(name), &content) {
            super::tell(&format!("error: cannot write {}: {error}\n", folder.join(name).display()));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(path: &Path, content: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_and_the_schemas_in_the_repository_are_current() {
        for (name, content) in files() {
            let written = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name));
            assert!(
                written.is_ok_and(|written| written == content),
                "docs/{name} is not what the code says; write it anew with\n\n    cargo run -- docs --write docs\n"
            );
        }
    }
}
