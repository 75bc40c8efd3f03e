//! x
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// x
pub struct Sketch;
