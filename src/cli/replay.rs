//! `anomalyd replay`: what a daemon took in happens again, from its input log.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::components::{Replayed, blocks, replay};
use crate::model::Findings;
use crate::storage::{DiskFiles, Files};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    /// The data directory of the daemon (`storage.data_dir`). It may be running; nothing in it is changed.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Only of this environment.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// What is printed.
    #[arg(long, value_enum, default_value_t = Output::Json)]
    format: Output,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Anomalies and events of incidents, one JSON object per line: byte for byte as the `file` exporter wrote them.
    Json,
    /// The same for people, as the `console` exporter writes them.
    Text,
    /// A hash of what every series has learnt at the end: equal states have equal lines.
    Digest,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd replay --data-dir data
  anomalyd replay --data-dir data --environment production --format text
  anomalyd replay --data-dir copy-of-data --format digest | sha256sum

The input log reaches back to the older of the two checkpoints that are kept, so that is where it begins: with
`storage.checkpoint_interval: 1h`, one to two hours. Findings go to stdout, everything else to stderr.";

pub(super) fn run(arguments: &ReplayArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the worker threads: {error}")),
    };
    match runtime.block_on(all(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn all(arguments: &ReplayArgs) -> Result<(), String> {
    let mut found = 0;
    for folder in detectors(&arguments.data_dir)? {
        let name = folder.strip_prefix(&arguments.data_dir).unwrap_or(&folder).display().to_string();
        if arguments.environment.as_deref().is_some_and(|wanted| Path::new(&name).parent() != Some(&folder_of(wanted))) {
            continue;
        }
        let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a temporary folder: {e}"))?;
        let files: Arc<dyn Files> = Arc::new(DiskFiles);
        let (format, digest) = (arguments.format, arguments.format == Output::Digest);
        let replayed = replay(files, &folder, scratch.path(), digest, move |_, findings| print(format, findings)).await?;
        let Some(Replayed { environment, detector, from, entries, digest }) = replayed else { continue };
        found += 1;
        for (series, hash) in digest {
            line(format!("{hash} {environment} {series}\n").as_bytes());
        }
        super::tell(&format!("{environment} {detector}: {entries} entries from {from} on\n"));
    }
    if found == 0 {
        return Err(format!(
            "there is no input log in {}: expected the `storage.data_dir` of a daemon that has run with `storage.input_log`",
            arguments.data_dir.display()
        ));
    }
    Ok(())
}

fn folder_of(environment: &str) -> PathBuf {
    PathBuf::from(crate::storage::folder_name(environment))
}

/// The folders of all detectors, sorted.
fn detectors(data_dir: &Path) -> Result<Vec<PathBuf>, String> {
    let read = |folder: &Path| -> Result<Vec<PathBuf>, String> {
        let all = std::fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
        let mut folders: Vec<PathBuf> = all.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        Ok(folders)
    };
    let mut detectors = Vec::new();
    for environment in read(data_dir)? {
        detectors.extend(read(&environment)?.into_iter().filter(|folder| folder.join("log").is_dir()));
    }
    Ok(detectors)
}

fn print(format: Output, findings: &Findings) {
    match format {
        Output::Digest => {}
        Output::Json => {
            let mut text = Vec::new();
            for anomaly in &findings.anomalies {
                add(&mut text, anomaly);
            }
            for incident in &findings.incidents {
                add(&mut text, incident);
            }
            line(&text);
        }
        Output::Text => {
            for block in blocks(findings) {
                line(format!("{block}\n").as_bytes());
            }
        }
    }
}

fn add(text: &mut Vec<u8>, what: &impl serde::Serialize) {
    if let Ok(json) = serde_json::to_vec(what) {
        text.extend_from_slice(&json);
        text.push(b'\n');
    }
}

fn line(bytes: &[u8]) {
    // A reader that has gone away (`| head`) wants no more.
    let _ = anstream::stdout().lock().write_all(bytes);
}

fn fail(error: &str) -> ExitCode {
    super::tell(&format!("error: {error}\n"));
    ExitCode::FAILURE
}
