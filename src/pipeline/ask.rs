//! What people ask running components and tell them, from outside of the pipelines.
//!
//! A component that has answers opens a [`Desk`] in the registry and reads the questions that come to it; whoever asks
//! knows the registry only. Questions wait in a short bounded queue: where nobody has time for them they are refused.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{Class, ComponentId};
use crate::model::Environment;

/// Questions that wait in front of a component.
const WAITING: usize = 16;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What somebody asks.
#[derive(Debug)]
pub struct Question {
    /// What it is about: `series`, `mute`.
    pub subject: String,
    /// What is said about it.
    pub body: Value,
    answer: oneshot::Sender<Result<Value, Refusal>>,
}

impl Question {
    /// Answers it. Whoever asked may have gone away.
    pub fn answer(self, answer: Result<Value, Refusal>) {
        let _ = self.answer.send(answer);
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal.
    pub kind: RefusalKind,
    /// A sentence.
    pub message: String,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The question makes no sense.
    Invalid,
    /// What it is about is not there.
    NotFound,
    /// Not now.
    Unavailable,
}

impl Refusal {
    /// The question makes no sense.
    #[must_use]
    pub const fn invalid(message: String) -> Self {
        Self { kind: RefusalKind::Invalid, message }
    }

    /// What it is about is not there.
    #[must_use]
    pub const fn not_found(message: String) -> Self {
        Self { kind: RefusalKind::NotFound, message }
    }

    /// Not now.
    #[must_use]
    pub const fn unavailable(message: String) -> Self {
        Self { kind: RefusalKind::Unavailable, message }
    }
}

/// Where a component can be asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Whose component.
    pub environment: Environment,
    /// Its class.
    pub class: Class,
    /// Its id.
    pub id: ComponentId,
    /// What it answers.
    pub subjects: &'static [&'static str],
    sender: mpsc::Sender<Question>,
}

impl Desk {
    /// A desk and what comes to it.
    pub(super) fn open(
        environment: &Environment,
        class: Class,
        id: &ComponentId,
        subjects: &'static [&'static str],
    ) -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { environment: environment.clone(), class, id: id.clone(), subjects, sender }, receiver)
    }

    /// Asks.
    ///
    /// # Errors
    /// What the component refuses; or that it has too much to do, or has ended.
    pub async fn ask(&self, subject: &str, body: Value) -> Result<Value, Refusal> {
        let unavailable =
            |what: &str| Refusal::unavailable(format!("{} `{}` of {} {what}", self.class.as_str(), self.id, self.environment));
        let (answer, heard) = oneshot::channel();
        let question = Question { subject: subject.to_owned(), body, answer };
        self.sender.try_send(question).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => unavailable("has too many questions to answer: ask again later"),
            mpsc::error::TrySendError::Closed(_) => unavailable("has ended"),
        })?;
        match tokio::time::timeout(PATIENCE, heard).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("has ended")),
            Err(_) => Err(unavailable("took too long to answer: ask again later")),
        }
    }

    /// Whether nobody reads its questions any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_are_answered_or_refused_and_never_pile_up() {
        let registry = Registry::default();
        let id = ComponentId::parse("detector").unwrap();
        let mut questions = registry.open_desk(&Environment::new("production"), Class::Connector, &id, &["series"]);
        assert!(registry.desks("mute").is_empty());
        let desk = registry.desks("series").remove(0);
        let answering = async {
            let question = questions.recv().await.unwrap();
            let body = question.body.clone();
            question.answer(Ok(body));
        };
        let (answer, ()) = tokio::join!(desk.ask("series", Value::from(7)), answering);
        assert_eq!(answer, Ok(Value::from(7)));

        let waiting: Vec<_> = (0..=WAITING)
            .map(|_| {
                let desk = desk.clone();
                tokio::spawn(async move { desk.ask("series", Value::Null).await })
            })
            .collect();
        let mut refused = Vec::new();
        for one in waiting {
            refused.push(one.await.unwrap().unwrap_err().message);
        }
        refused.sort();
        refused.dedup();
        assert_eq!(
            refused,
            [
                "connector `detector` of production has too many questions to answer: ask again later",
                "connector `detector` of production took too long to answer: ask again later"
            ]
        );
        drop(questions);
        let ended = desk.ask("series", Value::Null).await.unwrap_err();
        assert_eq!(
            (ended.kind, ended.message.as_str()),
            (RefusalKind::Unavailable, "connector `detector` of production has ended")
        );
        assert!(registry.desks("series").is_empty());
    }
}
