//! Values of the past from files, for commands that judge what has been.

mod table;
mod time;

pub use table::{Row, Table, TableError};
