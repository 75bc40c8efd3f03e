//! Every input of the corpus, and many like it, keep what the targets promise.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test; and it says which input it was")]

use std::time::{Duration, Instant};

use fuzz::mutate::Mutator;
use fuzz::{Target, corpus, target};

/// Inputs that are made per target; `FUZZ_RUNS` for more.
const RUNS: u64 = 4000;
/// A target whose inputs take long makes fewer of them.
const LONGEST: Duration = Duration::from_secs(6);

/// Says which input it was when reading it ends in a panic.
struct Reading<'i>(&'i str, &'i [u8]);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("fuzz-{}", std::process::id()));
            let saved = std::fs::write(&path, self.1).map_or_else(|e| e.to_string(), |()| path.display().to_string());
            eprintln!("the input is {} ({} bytes), saved as {saved}", self.0, self.1.len());
        }
    }
}

fn keeps_its_promises(name: &str) {
    let Target { run, .. } = target(name).expect("a target");
    let inputs = corpus::read(name).expect("a corpus");
    assert!(!inputs.is_empty(), "corpus/{name} is empty");
    for (file, input) in &inputs {
        let _reading = Reading(file, input);
        run(input);
    }
    let asked = std::env::var("FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok());
    let (runs, began) = (asked.unwrap_or(RUNS), Instant::now());
    let mut mutator = Mutator::new(inputs.iter().map(|(_, input)| input.as_slice()), 2026);
    for i in 0..runs {
        if asked.is_none() && began.elapsed() > LONGEST {
            break;
        }
        let input = mutator.draw();
        let _reading = Reading(&format!("mutation {i}"), &input);
        run(&input);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { keeps_its_promises(stringify!($name)); })*

        #[test]
        fn no_target_is_left_out() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(fuzz::TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), tested);
        }
    };
}
targets!(otlp_protobuf otlp_json otlp_grpc elasticsearch_search elasticsearch_bulk elasticsearch_error config log checkpoint journal);
