//! What a person who edits these files sees, mistake by mistake.

mod examples;
mod factories;
mod good;
mod inherited;
mod messages;

use std::path::Path;

use super::{Diagnostics, Loaded, Texts, load_from};
use factories::FACTORIES;

/// A pipeline file without a mistake.
const PIPELINE: &str = "\
environment: dev
receivers:
  otlp:
    protocols:
      grpc:
service:
  pipelines:
    traces: { receivers: [otlp], processors: [red_metrics], exporters: [detector] }
    anomalies: { receivers: [detector], exporters: [console] }
";

/// A daemon file that names it.
const DAEMON: &str = "environments: [dev.yml]\n";

fn environment(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("es-1".to_owned()),
        "ES_KEY" => Some("s3cr3t-from-outside".to_owned()),
        "PIN" => Some("0123".to_owned()),
        "SIZE" => Some("32".to_owned()),
        "EMPTY" => Some(String::new()),
        "NODES" => Some("[https://a:9200, https://b:9200]".to_owned()),
        _ => None,
    }
}

fn load(files: &Texts) -> Result<Loaded, Diagnostics> {
    load_from(files, Path::new("daemon.yml"), &environment, FACTORIES)
}

/// Both kinds of files, `dev.yml` being the pipeline file.
fn files(daemon: &str, pipeline: &str) -> Texts {
    Texts::default().with("daemon.yml", daemon).with("dev.yml", pipeline)
}

/// `PIPELINE` with a line replaced.
fn pipeline_with(line: &str, by: &str) -> String {
    assert!(PIPELINE.contains(line), "`{line}` is not in the file");
    PIPELINE.replacen(line, by, 1)
}
