//! Who hands something on hears when it is safe, and keeps it until then.
//!
//! A sender makes a pair with [`Receipt::new`], sends the receipt along, and waits. Whoever takes the payload in says
//! [`Receipt::kept`] when it is safe there: a detector when it is in its log on disk, an exporter when the other side
//! has it. A receipt that is let go without that, wherever it is (a task was cut off, a disk was full), tells the
//! sender that it still has what it sent. A payload that goes several ways is safe when all of them say so.

use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// To be confirmed by whoever takes a payload in. The default is one that nobody waits for.
#[derive(Debug, Default)]
pub struct Receipt(Option<Arc<Shared>>);

/// Where the sender hears of it. A sender that stops waiting has withdrawn what it sent.
#[derive(Debug)]
pub struct Waiting {
    heard: oneshot::Receiver<Result<(), Lost>>,
    withdrawn: CancellationToken,
}

/// Deliveries that stand in a row: when one of them is lost, all are withdrawn at the same moment. So whoever handles them one
/// by one, and looks at each whether it is withdrawn, takes in none that stands behind one that it did not keep.
#[derive(Clone, Debug, Default)]
pub struct Row(CancellationToken);

/// It is not safe: the sender still has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Lost {
    /// A sentence: what kept it from being taken in.
    pub why: Arc<str>,
}

#[derive(Debug)]
struct Shared {
    withdrawn: CancellationToken,
    /// Ends when this is lost.
    row: Option<Row>,
    /// Set by the first that does not keep it.
    lost: OnceLock<Lost>,
    answer: Option<oneshot::Sender<Result<(), Lost>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let answer = self.lost.take().map_or(Ok(()), Err);
        // The sender may not wait any more.
        self.answer.take().into_iter().for_each(|sender| drop(sender.send(answer.clone())));
    }
}

impl Receipt {
    /// A receipt, and where its sender hears of it.
    #[must_use]
    pub fn new() -> (Self, Waiting) {
        Self::make(CancellationToken::new(), None)
    }

    /// As [`Receipt::new`], of a delivery that stands in `row`.
    #[must_use]
    pub fn in_row(row: &Row) -> (Self, Waiting) {
        Self::make(row.0.child_token(), Some(row.clone()))
    }

    fn make(withdrawn: CancellationToken, row: Option<Row>) -> (Self, Waiting) {
        let (sender, heard) = oneshot::channel();
        let shared = Shared { withdrawn: withdrawn.clone(), row, lost: OnceLock::new(), answer: Some(sender) };
        (Self(Some(Arc::new(shared))), Waiting { heard, withdrawn })
    }

    /// It is safe here.
    pub fn kept(mut self) {
        self.0 = None;
    }

    /// It cannot be taken in, because of `why`.
    pub fn refuse(self, why: &str) {
        self.lose(why);
    }

    fn lose(&self, why: &str) {
        if let Some(shared) = &self.0 {
            let _ = shared.lost.set(Lost { why: Arc::from(why) });
            shared.row.iter().for_each(|row| row.0.cancel());
        }
    }

    /// Whether somebody waits for it, or did.
    pub(super) const fn has_sender(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the sender has stopped waiting: it will send it again, or has given it up.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.withdrawn.is_cancelled())
    }

    /// Waits until the sender has stopped waiting; for ever if nobody waits.
    pub fn withdrawn(&self) -> impl Future<Output = ()> + Send + use<> {
        let withdrawn = self.0.as_ref().map(|shared| shared.withdrawn.clone());
        async move {
            match withdrawn {
                Some(withdrawn) => withdrawn.cancelled_owned().await,
                None => std::future::pending().await,
            }
        }
    }

    /// One more that must confirm.
    #[must_use]
    pub fn share(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.lose("the pipeline has ended");
    }
}

impl Waiting {
    /// Waits until it is safe with all that were to keep it.
    ///
    /// # Errors
    /// Why one of them did not keep it.
    pub async fn heard(mut self) -> Result<(), Lost> {
        (&mut self.heard).await.unwrap_or_else(|_| Err(Lost { why: Arc::from("the pipeline has ended") }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.withdrawn.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_safe_when_all_that_share_it_have_kept_it() {
        let (receipt, mut waiting) = Receipt::new();
        let other = receipt.share();
        receipt.kept();
        assert!(waiting.heard.try_recv().is_err(), "the other has not said so yet");
        other.kept();
        assert_eq!(waiting.heard().await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_let_go_or_refused_by_one_is_not_safe() {
        let (receipt, waiting) = Receipt::new();
        let other = receipt.share();
        receipt.kept();
        drop(other);
        assert_eq!(waiting.heard().await.unwrap_err().to_string(), "the pipeline has ended");
        let (receipt, waiting) = Receipt::new();
        receipt.refuse("the disk is full");
        assert_eq!(waiting.heard().await.unwrap_err().to_string(), "the disk is full");
    }

    #[tokio::test]
    async fn a_loss_withdraws_what_stands_in_the_same_row_and_nothing_else_does() {
        let row = Row::default();
        let [(first, kept), (second, lost), (third, behind), (other, _waiting)] =
            [Receipt::in_row(&row), Receipt::in_row(&row), Receipt::in_row(&row), Receipt::in_row(&Row::default())];
        first.kept();
        assert_eq!(kept.heard().await, Ok(()));
        assert!(!second.is_withdrawn() && !third.is_withdrawn(), "what was kept ends no row");
        second.refuse("not now");
        assert!(third.is_withdrawn() && !other.is_withdrawn());
        assert_eq!(lost.heard().await.unwrap_err().to_string(), "not now");
        third.kept();
        assert_eq!(behind.heard().await, Ok(()), "it may have been under way already");
    }

    #[tokio::test]
    async fn who_stops_waiting_has_withdrawn() {
        let (receipt, waiting) = Receipt::new();
        assert!(!receipt.is_withdrawn());
        drop(waiting);
        assert!(receipt.is_withdrawn());
        assert!(!Receipt::default().is_withdrawn());
    }
}
