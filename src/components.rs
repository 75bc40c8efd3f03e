//! All component types. The only file that knows every component; each is one line here.

use crate::pipeline::Factory;

/// Every type that a pipeline file may name.
pub const FACTORIES: &[Factory] = &[crate::receivers::elasticsearch::FACTORY, crate::exporters::console::FACTORY];
