//! All component types. The only file that knows every component; each is one line here.

use crate::connectors::detector;
use crate::pipeline::Factory;
use crate::processors::{log_patterns, red_metrics};

/// Every type that a pipeline file may name.
pub const FACTORIES: &[Factory] =
    &[red_metrics::FACTORY, log_patterns::FACTORY, detector::FACTORY, crate::exporters::console::FACTORY];
