//! A load generator for a running daemon, and the judge of what became of the load.
//!
//! It sends OTLP for a bounded time, sends again what is refused as a Collector does, counts by record what became of
//! everything, and compares that with what the daemon says of itself: at every edge received = sent + dropped +
//! in flight, and what was acknowledged is what the first consumer took in, once. It fails where anything is
//! unaccounted for, and where nothing came through at all.

pub mod checkpoint;
pub mod client;
pub mod compare;
pub mod daemon;
pub mod judge;
pub mod learnt;
pub mod metrics;
pub mod options;
pub mod overload;
pub mod recovery;
pub mod report;
pub mod request;
pub mod run;
pub mod samples;
pub mod tally;

/// What went wrong, in a sentence.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// One run, against a daemon that is started as `recipe` says, or one that runs at `options.endpoint`.
///
/// # Errors
/// When there is no daemon, or it does not answer on `/metrics`. What is unaccounted for stands in the report.
pub async fn measure(options: &options::Options, recipe: Option<&daemon::Recipe>) -> Result<report::Report, Error> {
    let own = match recipe {
        Some(recipe) => Some(daemon::Daemon::start(recipe).await?),
        None => None,
    };
    let address = match (&own, options.protocol) {
        (Some(own), client::Protocol::Grpc) => own.grpc.clone(),
        (Some(own), client::Protocol::Http) => own.http.clone(),
        (None, _) => options.endpoint.clone().ok_or("neither `--daemon` nor `--endpoint` is given")?,
    };
    let admin = own.as_ref().map_or(&options.admin, |own| &own.admin);
    let pid = own.as_ref().map_or(options.pid, daemon::Daemon::pid);
    let before = metrics::settled(admin, SETTLED).await?;
    let cpu_before = pid.and_then(daemon::cpu_seconds);
    let watch = pid.map(daemon::Watch::begin);
    let (tally, took) = run::run(options.plan(address)).await?;
    let after = metrics::settled(admin, SETTLED).await?;
    let cpu = pid.and_then(daemon::cpu_seconds).zip(cpu_before).map(|(after, before)| after - before);
    let peak = watch.map(|watch| watch.peak());
    let disk = own.as_ref().map(daemon::Daemon::data_size);
    let mut verdict = judge::judge(&tally, &after.since(&before), options.signal);
    if let Some(own) = own
        && let Err(error) = own.stop().await
    {
        verdict.problems.push(error.to_string());
    }
    Ok(report::Report { signal: options.signal, took, tally, verdict, cpu, peak, disk })
}

/// How long the daemon may take to hand on what it has taken in.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(30);
