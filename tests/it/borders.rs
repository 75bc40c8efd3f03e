//! The borders that `ARCHITECTURE.md` names, held.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use crate::support::project;

const CLASSES: [&str; 4] = ["receivers", "processors", "connectors", "exporters"];

/// The Rust files under a folder of the project, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![project(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a folder's entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    found
}

/// What is not a comment, without spaces: paths that are broken over lines come together.
fn code(text: &str) -> String {
    let lines = text.lines().map(|l| l.split_once("//").map_or(l, |(code, _)| code));
    lines.flat_map(|l| l.chars().filter(|c| !c.is_whitespace())).collect()
}

/// Every module that `code` names right after `prefix`: `crate::receivers::otlp` and also each one in
/// `crate::receivers::{otlp,elasticsearch::Cursor}`.
fn named_after<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    fn word(s: &str) -> &str {
        s.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or("")
    }
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begin = 0;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    names.insert(word(&group[begin..i]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.insert(word(&group[begin..i]));
                    begin = i + 1;
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn the_search_for_imports_sees_groups_and_broken_lines() {
    let code = code(
        "use crate::receivers::{\n  otlp, // crate::receivers::not_this\n  elasticsearch::{Cursor, x},\n};\nuse crate\n ::receivers::host;",
    );
    assert_eq!(named_after(&code, "crate::receivers::"), BTreeSet::from(["otlp", "elasticsearch", "host"]));
}

#[test]
fn no_component_imports_another_component() {
    let mut wrong = Vec::new();
    for class in CLASSES {
        let root = project("src").join(class);
        for (path, text) in sources(&format!("src/{class}")) {
            let inside = path.strip_prefix(&root).expect("a path in the folder");
            let depth = inside.components().count();
            let own = inside.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
            let own = own.trim_end_matches(".rs");
            if depth == 1 && own == "mod" {
                continue; // the list of the components
            }
            let code = code(&text);
            for other in CLASSES {
                let mut names = named_after(&code, &format!("crate::{other}::"));
                names.extend(named_after(&code, &format!("crate::{{{other}::")));
                names.extend(code.contains(&format!("usecrate::{other};")).then_some("(all of it)"));
                names.retain(|name| other != class || *name != own);
                wrong.extend(names.into_iter().map(|name| format!("{}: crate::{other}::{name}", path.display())));
            }
            // The file `<name>/mod.rs` is one step below the class, `<name>/x.rs` two; a module inside adds one.
            let climb = "super::".repeat(if path.ends_with("mod.rs") { depth - 1 } else { depth });
            let tests = code.find("#[cfg(test)]modtests{").unwrap_or(code.len());
            let names =
                named_after(&code[..tests], &climb).into_iter().filter(|name| *name != own).map(|n| format!("{climb}{n}"));
            wrong.extend(names.map(|name| format!("{}: {name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "components know `model`, `pipeline` and `storage`, not each other:\n{}", wrong.join("\n"));
}

#[test]
fn a_component_stands_on_the_payloads_the_engine_and_storage_alone() {
    const BASE: [&str; 5] = ["config", "model", "pipeline", "storage", "text"];
    let mut wrong = Vec::new();
    for class in CLASSES {
        for (path, text) in sources(&format!("src/{class}")) {
            let shares_the_client = path.components().any(|c| c.as_os_str() == "elasticsearch");
            let code = code(&text);
            let names = named_after(&code, "crate::").into_iter().filter(|name| {
                let known = BASE.contains(name) || CLASSES.contains(name) || (*name == "elasticsearch" && shares_the_client);
                !known && name.starts_with(char::is_lowercase)
            });
            wrong.extend(names.map(|name| format!("{}: crate::{name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "a component may use {BASE:?}:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_list_of_components_knows_components() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let inside = path.strip_prefix(project("src")).expect("a path in the folder").to_string_lossy().into_owned();
        // The demo prints anomalies as the console exporter does.
        if inside == "components.rs" || inside.contains("demo") || CLASSES.iter().any(|class| inside.starts_with(class)) {
            continue;
        }
        let code = code(&text);
        let names = CLASSES.iter().filter(|class| !named_after(&code, &format!("crate::{class}::")).is_empty());
        wrong.extend(names.map(|class| format!("{inside}: crate::{class}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_client_knows_how_requests_are_sent_to_elasticsearch() {
    let outside = sources("src").into_iter().filter(|(path, _)| !path.starts_with(project("src/elasticsearch")));
    let wrong: Vec<String> = outside
        .filter(|(path, text)| !path.ends_with("tests.rs") && code(text).contains("reqwest::"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_server_reads_storage_and_knows_no_component() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src/server") {
        let code = code(&text);
        let names = CLASSES
            .iter()
            .copied()
            .chain(["components"])
            .filter(|n| code.contains(&format!("crate::{n}")) || named_after(&code, "crate::").contains(n));
        wrong.extend(names.map(|n| format!("{}: crate::{n}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The packages that `package` is built of, less itself.
fn dependencies(package: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{lib}"])
        .args(arguments)
        .current_dir(project("."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|l| l.trim().replace('_', "-")).filter(|l| !l.is_empty() && l != package).collect()
}

#[test]
fn the_mathematics_depends_on_mathematics_only() {
    const ALLOWED: [&str; 7] = ["libm", "linfa", "linfa-clustering", "linfa-nn", "ndarray", "num-traits", "serde"];
    let tree = |arguments: &[&str]| dependencies("detection", arguments);
    let direct = tree(&["--depth", "1"]);
    let strangers: Vec<&String> = direct.iter().filter(|d| !ALLOWED.contains(&d.as_str())).collect();
    assert!(strangers.is_empty(), "crates/detection depends on {strangers:?}; it is allowed {ALLOWED:?}");
    assert!(direct.contains("serde"), "cargo tree lists the dependencies: {direct:?}");

    const NEVER: [&str; 16] = [
        "async-std",
        "axum",
        "chrono",
        "crossbeam-channel",
        "futures-executor",
        "hyper",
        "jiff",
        "mio",
        "redb",
        "reqwest",
        "rustix",
        "smol",
        "socket2",
        "time",
        "tokio",
        "tracing",
    ];
    let indirect: Vec<String> = tree(&[]).into_iter().filter(|d| NEVER.contains(&d.as_str())).collect();
    assert!(indirect.is_empty(), "below crates/detection are {indirect:?}");
}

#[test]
fn what_reads_files_and_what_measures_know_nothing_of_the_daemon() {
    let readers = dependencies("history", &[]);
    assert!(readers.contains("csv"), "cargo tree lists the dependencies: {readers:?}");
    for stranger in ["anomalyd", "detection", "tokio"] {
        assert!(!readers.contains(stranger), "crates/history depends on {stranger}");
    }
    let bench = dependencies("accuracy", &[]);
    assert!(bench.contains("detection") && bench.contains("history"), "{bench:?}");
    assert!(!bench.contains("anomalyd") && !bench.contains("tokio"), "benches/accuracy measures the mathematics alone");
}

#[test]
fn the_mathematics_reads_no_clock_and_opens_nothing() {
    const NEVER: [&str; 9] = ["fs", "net", "time", "thread", "process", "env", "io", "os", "sync"];
    let mut wrong = Vec::new();
    for (path, text) in sources("crates/detection/src") {
        let code = code(&text);
        let named = named_after(&code, "std::");
        let names = NEVER.iter().filter(|n| named.contains(*n) && !(**n == "sync" && only_shared_ownership(&code)));
        wrong.extend(names.map(|n| format!("{}: std::{n}", path.display())));
        let clocks = ["SystemTime", "Instant::now", "asyncfn", ".await"].iter().filter(|c| code.contains(*c));
        wrong.extend(clocks.map(|c| format!("{}: {c}", path.display())));
    }
    assert!(wrong.is_empty(), "the detection core is a pure function of its input:\n{}", wrong.join("\n"));
}

/// `Arc` and constants that are computed once do no harm; locks, channels and atomics would.
fn only_shared_ownership(code: &str) -> bool {
    let named = named_after(code, "std::sync::");
    named.iter().all(|n| matches!(*n, "Arc" | "LazyLock" | "OnceLock"))
}

#[test]
fn no_file_has_grown_out_of_hand() {
    const MOST: usize = 700;
    let files = ["src", "crates", "tests", "benches", "fuzz"].into_iter().filter(|f| project(f).exists()).flat_map(sources);
    let long: Vec<String> = files
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(path, lines)| *lines > MOST && !path.components().any(|c| c.as_os_str() == "target"))
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "one idea a file, none over {MOST} lines:\n{}", long.join("\n"));
}

/// The lines of the code blocks (indented, or between fences) of a Markdown file that are commands of this project.
fn commands(markdown: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            let line = line.split(" # ").next().unwrap_or(line).trim();
            let program = line.split_whitespace().next().unwrap_or("");
            if program == "cargo" || program == "anomalyd" || program.starts_with("scripts/") {
                lines.push(line);
            }
        }
    }
    lines
}

#[test]
fn what_the_readme_tells_to_run_is_there() {
    let readme = std::fs::read_to_string(project("README.md")).expect("README.md");
    let lines = commands(&readme);
    assert!(lines.contains(&"scripts/test"), "the README names the one command that passes all tests: {lines:?}");
    assert!(lines.iter().any(|l| l.contains("demo")), "the README names the command that runs the main job: {lines:?}");
    let help = Command::new(env!("CARGO_BIN_EXE_anomalyd")).arg("--help").output().expect("the binary runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for line in lines {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or("");
        assert!(!program.contains('/') || project(program).exists(), "README: `{line}`: there is no such file");
        if let Some((_, package)) = line.split_once(" -p ") {
            // A command of another package of the workspace: its options are its own.
            let package = package.split_whitespace().next().unwrap_or("");
            let there = ["benches", "crates"].iter().any(|folder| project(folder).join(package).is_dir());
            assert!(there, "README: `{line}`: there is no package `{package}`");
            continue;
        }
        let command = match line.split_once(" -- ") {
            Some((_, rest)) => rest.split_whitespace().next(),
            None if program == "anomalyd" => words.next(),
            None => None,
        };
        if let Some(command) = command {
            let known = help.lines().any(|l| l.split_whitespace().next() == Some(command));
            assert!(known, "README: `{line}`: there is no command `{command}`:\n{help}");
        }
        for file in words.filter(|w| w.ends_with(".yml")) {
            assert!(project(file).exists(), "README: `{line}`: there is no {file}");
        }
    }
}

#[test]
fn ci_runs_the_command_that_the_readme_names() {
    let ci = std::fs::read_to_string(project(".ci/run")).expect(".ci/run");
    let runs: Vec<&str> = ci.lines().map(str::trim).filter(|l| l.contains("scripts/")).collect();
    assert_eq!(runs, ["exec scripts/test"], "the same command for everybody");
}

#[test]
fn documents_link_to_what_is_there() {
    let mut documents =
        vec![project("README.md"), project("ARCHITECTURE.md"), project("CONTRIBUTING.md"), project("CHANGELOG.md")];
    let mut folders = vec![project("docs"), project("src"), project("crates"), project("benches")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a folder's entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                documents.push(path);
            }
        }
    }
    let mut broken = Vec::new();
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap_or_else(|e| panic!("{}: {e}", document.display()));
        let links = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next());
        let files =
            links.filter(|l| !l.contains("://") && !l.starts_with('#') && !l.contains(' ')).filter_map(|l| l.split('#').next());
        let folder = document.parent().expect("a folder");
        broken.extend(files.filter(|f| !folder.join(f).exists()).map(|f| format!("{}: {f}", document.display())));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
