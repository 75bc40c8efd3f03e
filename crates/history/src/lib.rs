//! Values of the past from files, for commands that judge what has been.
//!
//! - [`Table`] reads a CSV or NDJSON file row by row: a time and one value, or several values of one entity.
//! - [`Steady`] knows the step between the rows of a table, and lets no time go back.
//! - [`seconds`] understands times as files write them.
//!
//! Nothing here looks ahead further than the first [`TO_KNOW_THE_STEP`] rows, and no file is read twice.
//!
//! ```
//! # fn main() -> Result<(), history::ReadError> {
//! # let folder = std::env::temp_dir();
//! # let path = folder.join("history-doc.csv");
//! # std::fs::write(&path, "time,cpu,memory,label\n2026-01-15 10:00,1,2,0\n2026-01-15 10:05,,3,1\n").unwrap();
//! let table = history::Table::open(&path)?;
//! assert_eq!(table.columns(), ["cpu", "memory"]);
//! let rows = history::Steady::new(table);
//! assert_eq!(rows.step(), 300.0);
//! for row in rows {
//!     let row = row?;
//!     assert_eq!(row.values.len(), 2); // NaN where there is no number
//! }
//! # Ok(())
//! # }
//! ```

mod columns;
mod csv_rows;
mod json_rows;
mod row;
mod steady;
mod table;
mod time;

pub use row::{ReadError, Row};
pub use steady::{Steady, TO_KNOW_THE_STEP};
pub use table::Table;
pub use time::seconds;
