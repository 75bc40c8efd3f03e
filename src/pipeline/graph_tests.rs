use indexmap::IndexMap;
use serde_json::json;

use super::super::test_components::FACTORIES;
use super::*;
use crate::model::Environment;
use crate::pipeline::PipelineSpec;

fn ids(list: &[&str]) -> Vec<ComponentId> {
    list.iter().map(|id| ComponentId::parse(id).unwrap()).collect()
}

fn pipeline(receivers: &[&str], processors: &[&str], exporters: &[&str]) -> PipelineSpec {
    PipelineSpec { receivers: ids(receivers), processors: ids(processors), exporters: ids(exporters) }
}

fn spec(pipelines: &[(&str, PipelineSpec)], connectors: &[&str]) -> EnvironmentSpec {
    let declare = |list: &[&str]| ids(list).into_iter().map(|id| (id, json!({}))).collect::<IndexMap<_, _>>();
    EnvironmentSpec {
        environment: Environment::new("production"),
        default: false,
        receivers: declare(&["source"]),
        processors: IndexMap::new(),
        connectors: declare(connectors),
        exporters: declare(&["sink"]),
        pipelines: pipelines.iter().map(|(name, p)| ((*name).to_owned(), p.clone())).collect(),
    }
}

fn problems(pipelines: &[(&str, PipelineSpec)], connectors: &[&str]) -> String {
    let found = plan(&spec(pipelines, connectors), FACTORIES).err().unwrap_or_default();
    let line = |p: &GraphProblem| {
        let hint = p.hint.as_ref().map(|h| format!(" (help: {h})")).unwrap_or_default();
        format!("{}: {}{hint}", p.path.join("."), p.message)
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_whole_graph_passes_and_implicit_components_need_no_declaration() {
    let pipelines =
        [("traces", pipeline(&["source"], &["measure"], &["judge"])), ("anomalies", pipeline(&["judge"], &[], &["sink"]))];
    let plan = plan(&spec(&pipelines, &[]), FACTORIES).unwrap();
    let used: Vec<String> = plan.used.iter().map(|u| u.id.to_string()).collect();
    assert_eq!(used, ["source", "measure", "judge", "sink"]);
}

#[test]
fn every_problem_of_a_graph_is_reported_at_once() {
    insta::assert_snapshot!(problems(
        &[
            ("traces", pipeline(&["sourc"], &["measure"], &["judge"])),
            ("logs", pipeline(&["source"], &["measure"], &["sink"])),
            ("metrics", pipeline(&["source"], &[], &[])),
            ("anomalies", pipeline(&["source"], &[], &["nowhere"])),
        ],
        &["judge/spare"],
    ), @r"
    service.pipelines.traces.receivers.0: receiver or connector `sourc` is not declared (help: did you mean `source`?)
    service.pipelines.logs.processors.0: processor `measure` does not take logs (help: it takes traces)
    service.pipelines.metrics: pipeline `metrics` has no exporters: expected at least one
    service.pipelines.anomalies.receivers.0: receiver `source` gives no anomalies
    service.pipelines.anomalies.exporters.0: exporter or connector `nowhere` is not declared (help: declare it under `exporters` or `connectors`)
    service.pipelines: connector `judge` ends a pipeline but begins none (help: name it under `receivers` of a pipeline too)
    connectors.judge/spare: connector `judge/spare` is declared but no pipeline uses it (help: name it in a pipeline, or remove it)
    ");
}

#[test]
fn spans_that_nobody_measured_do_not_reach_a_detector() {
    insta::assert_snapshot!(problems(
        &[("traces", pipeline(&["source"], &[], &["judge"])), ("anomalies", pipeline(&["judge"], &[], &["sink"]))],
        &[],
    ), @"service.pipelines.traces.exporters.0: connector `judge` does not take traces (help: it takes observations; add `processors: [red_metrics]` to measure the spans first)");
}

#[test]
fn a_connector_that_feeds_itself_is_a_cycle() {
    let found = problems(
        &[
            ("traces", pipeline(&["source"], &["measure"], &["judge"])),
            ("anomalies", pipeline(&["judge"], &[], &["loop", "sink"])),
            ("anomalies/again", pipeline(&["loop"], &[], &["loop"])),
        ],
        &["loop"],
    );
    assert!(found.contains("connector `loop` feeds itself: its pipelines form a cycle"), "{found}");
}
