//! What senders hear: a request is taken in once, or they still have it.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::connector::Disk;
use super::*;
use crate::pipeline::{BatchId, ComponentError, Counters, Input, Instance, Lost, Make, Origin, Output, Receipt, Waiting};
use crate::storage::{LogOptions, Reader};

/// A detector with an input log, and its queue.
struct Running {
    output: Output,
    counters: Arc<Counters>,
    task: JoinHandle<Result<(), ComponentError>>,
}

impl Running {
    async fn on(disk: &Disk) -> Self {
        let counters = Arc::new(Counters::default());
        let mut context = disk.context(BEGIN, &counters);
        context.services.input_log = Some(LogOptions { segment_size: 1 << 20, max_size: 4 << 20 });
        let Make::Connector(make) = super::super::FACTORY.make else { panic!("a connector") };
        let mut detector =
            make(Instance { config: serde_json::json!({ "shards": 1 }), context }).map_err(|e| e.to_string()).unwrap();
        detector.start().await.unwrap();
        let (edge, input) = Input::queue(4, Arc::clone(&counters));
        let task = tokio::spawn(detector.run(input, Output::new(Vec::new())));
        Self { output: Output::new(vec![edge]), counters, task }
    }

    /// Hands over a request of one gauge of `service`, which is its id too; where its sender hears of it.
    async fn send(&self, service: &str) -> Waiting {
        let (receipt, waiting) = Receipt::new();
        self.hand(service, receipt).await;
        waiting
    }

    async fn hand(&self, service: &str, receipt: Receipt) {
        let origin = Origin { id: Some(BatchId::of(&[service.as_bytes()])), mark: None };
        self.output.send_on(payload(vec![gauge(service, BEGIN, 1.0)]), origin, receipt).await.unwrap();
    }

    async fn heard(&self, service: &str) -> Result<(), Lost> {
        tokio::time::timeout(Duration::from_secs(60), self.send(service).await.heard()).await.expect("an answer")
    }

    fn event(&self, event: &str) -> u64 {
        self.counters.events().get(event).copied().unwrap_or_default()
    }

    async fn end(self) {
        drop(self.output);
        self.task.await.unwrap().unwrap();
    }
}

/// In how many entries of the log on this disk `service` stands.
fn logged(disk: &Disk, service: &str) -> usize {
    let mut reader = Reader::open(Arc::new(disk.files.clone()), "data/production/detector/log".into(), 0).unwrap();
    let mut times = 0;
    while let Some(record) = reader.read() {
        let (_, bytes) = record.unwrap();
        times += usize::from(bytes.windows(service.len()).any(|window| window == service.as_bytes()));
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_acknowledged_and_not_taken_in_again_even_after_a_restart() {
    let disk = Disk::default();
    let running = Running::on(&disk).await;
    assert_eq!(running.heard("first").await, Ok(()));
    assert_eq!(running.heard("first").await, Ok(()));
    assert_eq!((running.event("requests_repeated"), logged(&disk, "first")), (1, 1));
    running.end().await;
    let running = Running::on(&disk).await;
    assert_eq!(running.heard("first").await, Ok(()));
    assert_eq!((running.event("requests_repeated"), logged(&disk, "first")), (1, 1));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_is_refused_and_taken_when_it_comes_again() {
    let disk = Disk::default();
    let running = Running::on(&disk).await;
    assert_eq!(running.heard("before").await, Ok(()));
    disk.files.faults(|f| f.free = Some(0));
    insta::assert_snapshot!(running.heard("second").await.unwrap_err().to_string());
    assert_eq!(logged(&disk, "second"), 0);
    disk.files.heal();
    assert_eq!(running.heard("second").await, Ok(()));
    assert_eq!((running.event("requests_repeated"), logged(&disk, "second")), (0, 1));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_sender_has_withdrawn_is_not_written() {
    let disk = Disk::default();
    let running = Running::on(&disk).await;
    let (receipt, waiting) = Receipt::new();
    drop(waiting);
    running.hand("withdrawn", receipt).await;
    // What comes behind it is through when it is.
    assert_eq!(running.heard("third").await, Ok(()));
    assert_eq!((logged(&disk, "withdrawn"), logged(&disk, "third")), (0, 1));
    let counts = running.counters.of(crate::model::PayloadKind::Observations);
    assert_eq!((counts.received, counts.refused, counts.dropped_total()), (1, 1, 0));
    // It was not taken in, so it may come again.
    assert_eq!(running.heard("withdrawn").await, Ok(()));
    assert_eq!((logged(&disk, "withdrawn"), running.event("requests_repeated")), (1, 0));
    running.end().await;
}
