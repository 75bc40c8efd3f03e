//! The command as a person meets it, on small data in the layouts that it reads.
#![expect(clippy::expect_used, reason = "a test that cannot go on fails, and says why")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the command; standard output and error in one text beside the exit code.
fn accuracy(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_accuracy")).args(arguments).output().expect("the command runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn noise(row: usize) -> f64 {
    (row * 7_919 % 1_009) as f64 / 1_009.0
}

/// Rows five minutes apart with one day's rhythm and faults of some rows.
fn series(rows: usize, faults: &[usize], labelled: bool) -> String {
    let mut text = if labelled { "TimeStamp,Value,Label\n" } else { "timestamp,value\n" }.to_owned();
    for row in 0..rows {
        let fault = faults.iter().any(|fault| (*fault..fault + 6).contains(&row));
        let usual = 50.0 + 20.0 * (row as f64 / 288.0 * std::f64::consts::TAU).sin() + noise(row);
        let value = if fault { usual * 3.0 } else { usual };
        let label = if labelled { if fault { ",1" } else { ",0" } } else { "" };
        writeln!(text, "{},{value:.3}{label}", row * 300).expect("a row");
    }
    text
}

/// A folder in which two files of each kind are.
fn data(folder: &Path) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write("nab/data/real/one.csv", &series(3_000, &[2_000], false));
    write("nab/data/real/two.csv", &series(3_000, &[1_500, 2_500], false));
    let window = |first: usize, last: usize| format!("[\"{}\", \"{}\"]", first * 300, last * 300);
    let windows = format!(
        "{{\"real/one.csv\": [{}], \"real/two.csv\": [{}, {}]}}",
        window(1_950, 2_050),
        window(1_450, 1_550),
        window(2_450, 2_550)
    );
    write("nab/labels/combined_windows.json", &windows);
    write("cloud-monitoring/a/one.csv", &series(3_000, &[2_000], true));
    write("cloud-monitoring/b/two.csv", &series(3_000, &[1_500, 2_500], true));
    let rows = |labelled: bool| {
        let mut text = String::new();
        for row in 0..2_000usize {
            let fault = labelled && (1_000..1_020).contains(&row);
            let usual = 5.0 + (row as f64 / 288.0 * std::f64::consts::TAU).sin() + noise(row);
            let value = if fault { usual + 20.0 } else { usual };
            let label = if labelled { if fault { ",1" } else { ",0" } } else { "" };
            writeln!(text, "{value},{},{}{label}", value * 2.0, noise(row + 7)).expect("a row");
        }
        text
    };
    write("asd/web_train.csv", &rows(false));
    write("asd/web_test.csv", &rows(true));
}

#[test]
fn plain_faults_are_found_in_every_kind_of_data_and_scores_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_folder, scores) = (folder.path().join("data"), folder.path().join("scores"));
    data(&data_folder);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (code, told) = accuracy(&["--data", &text(&data_folder), "--only", "nab,cloud,asd", "--scores", &text(&scores)]);
    for name in ["NAB standard", "cloud-monitoring, recall", "asd, VUS-PR"] {
        assert!(told.contains(name), "{told}");
    }
    let recall = told.lines().find(|line| line.starts_with("cloud-monitoring, recall at up to 0.11")).expect("a row");
    assert!(recall.contains(" 1.000 "), "{told}");
    assert!(matches!(code, Some(0 | 1)), "{told}");
    for (file, header) in [
        ("nab/real/one.csv", "timestamp,value,anomaly_score"),
        ("cloud-monitoring/two.csv", "timestamp,value,point_score,alert_score,page_score"),
        ("asd/web.csv", "row,label,entity_score"),
    ] {
        let written = fs::read_to_string(scores.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(written.lines().next(), Some(header), "{file}");
        assert!(written.lines().count() > 1_999, "{file}");
    }
}

#[test]
fn the_results_of_another_detector_are_scored_beside() {
    let folder = tempfile::tempdir().expect("a folder");
    data(folder.path());
    // It speaks at the first row of every window, and at one row too many.
    for (file, detections) in [("one", vec![1_950, 2_900]), ("two", vec![1_450, 2_450])] {
        let mut text = "timestamp,value,anomaly_score,label\n".to_owned();
        for row in 0..3_000usize {
            writeln!(text, "{row},0,{},0", f64::from(u8::from(detections.contains(&row)))).expect("a row");
        }
        fs::create_dir_all(folder.path().join("peer/real")).expect("a folder");
        fs::write(folder.path().join(format!("peer/real/peer_{file}.csv")), text).expect("a file");
    }
    let text = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let arguments = ["--nab", &text("nab"), "--results", &text("peer"), "--only", "nab", "--floors", "off"];
    let (code, told) = accuracy(&arguments);
    assert_eq!(code, Some(0), "{told}");
    // Three windows at their best, and a false detection far behind one costs .11: (3 - .11 + 3) / 6.
    let row = told.lines().find(|line| line.starts_with("peer: NAB standard, best threshold")).expect("a row");
    assert!(row.contains(" 98.17"), "{told}");
}

#[test]
fn a_measure_below_its_floor_fails_unless_floors_are_off() {
    let folder = tempfile::tempdir().expect("a folder");
    // Labels where nothing is to be seen: no detector can reach the floor.
    let text = series(2_000, &[1_200], true).replace(",1\n", ",0\n").replacen("360000,", "360000,50", 1);
    let text = text
        .lines()
        .enumerate()
        .map(|(row, line)| if (1_700..1_705).contains(&row) { line.replace(",0", ",1") } else { line.to_owned() });
    fs::write(folder.path().join("quiet.csv"), text.collect::<Vec<_>>().join("\n")).expect("a file");
    let folder = folder.path().to_string_lossy().into_owned();
    let (code, told) = accuracy(&["--labelled", &folder, "--only", "cloud"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("BELOW FLOOR") && told.contains("are below their floor"), "{told}");
    let (code, told) = accuracy(&["--labelled", &folder, "--only", "cloud", "--floors", "off", "--format", "markdown"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("| measure") && !told.contains("BELOW FLOOR"), "{told}");
}

#[test]
fn what_is_missing_is_told() {
    let (code, told) = accuracy(&["--only", "nab"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("--data"), "{told}");
    let empty = tempfile::tempdir().expect("a folder");
    let (code, told) = accuracy(&["--data", &empty.path().to_string_lossy(), "--only", "nab,cloud"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("cloud-monitoring") && told.contains("nab"), "{told}");
    let (code, told) = accuracy(&["--labelled", &empty.path().to_string_lossy(), "--only", "cloud"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("no CSV files"), "{told}");
}
