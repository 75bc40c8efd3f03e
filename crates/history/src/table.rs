//! Files with a time and one or several values in each row, read row by row.

use std::path::Path;

use crate::csv_rows::CsvRows;
use crate::json_rows::JsonRows;
use crate::row::{ReadError, Row};

/// An open file of rows: CSV, or NDJSON if its name ends in `.ndjson`, `.jsonl` or `.json`.
///
/// The time is in a column called `timestamp` (or `time`, `date`, `@timestamp`..., in any case). The values are in the
/// column `value` (`value_2`... as well), or, where there is none, in all other columns that hold numbers: they
/// are one entity. A column `label` or `is_anomaly` is not looked at, unless asked for.
pub struct Table {
    columns: Vec<String>,
    unread: Vec<String>,
    rows: Rows,
}

enum Rows {
    Csv(CsvRows),
    Json(JsonRows),
}

impl Table {
    /// Opens `path` and finds its columns; labels are not looked at.
    ///
    /// # Errors
    /// When the file cannot be opened, or does not have a column of times and one of values.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_with(path, false)
    }

    /// As [`Table::open`], and reads the labels, for measuring how well the rows are judged.
    ///
    /// # Errors
    /// As [`Table::open`], and when there is no column of labels.
    pub fn open_labelled(path: &Path) -> Result<Self, ReadError> {
        Self::open_with(path, true)
    }

    /// Opens a CSV file without a line of names: all columns are values, called `1`, `2`..., and the rows are `step`
    /// seconds apart, the first at `begin` (Unix seconds).
    ///
    /// # Errors
    /// When the file cannot be opened, or its first line holds something else than numbers.
    pub fn open_headerless(path: &Path, begin: f64, step: f64) -> Result<Self, ReadError> {
        let (rows, columns) = CsvRows::headerless(path, begin, step)?;
        Ok(Self { columns, unread: Vec::new(), rows: Rows::Csv(rows) })
    }

    fn open_with(path: &Path, labels: bool) -> Result<Self, ReadError> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if matches!(ending.as_str(), "ndjson" | "jsonl" | "json") {
            let (rows, columns, unread) = JsonRows::open(path, labels)?;
            return Ok(Self { columns, unread, rows: Rows::Json(rows) });
        }
        let (rows, columns, unread) = CsvRows::open(path, labels)?;
        Ok(Self { columns, unread, rows: Rows::Csv(rows) })
    }

    /// The names of the values, as the file writes them; at least one.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Columns that are neither time, label nor value: text, and what stands beside a column called `value`.
    #[must_use]
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Bytes of the file that have been read, to tell how far it is.
    #[must_use]
    pub fn position(&self) -> u64 {
        match &self.rows {
            Rows::Csv(rows) => rows.position(),
            Rows::Json(rows) => rows.position(),
        }
    }
}

impl Iterator for Table {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.rows {
            Rows::Csv(rows) => rows.next(),
            Rows::Json(rows) => rows.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<T>(name: &str, text: &str, of: impl Fn(&Path) -> Result<T, ReadError>) -> Result<T, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        of(&path).map_err(|e| e.to_string().replace(&folder.path().display().to_string(), "FOLDER"))
    }

    fn read(name: &str, text: &str) -> Result<Vec<Row>, String> {
        table(name, text, |path| Table::open(path)?.collect())
    }

    fn times_and_values(rows: &[Row]) -> Vec<(f64, Option<f64>)> {
        rows.iter().map(|row| (row.time, row.value())).collect()
    }

    #[test]
    fn columns_are_found_by_name_in_any_case_and_labels_are_not_looked_at() {
        let rows =
            read("a.csv", "\u{feff}TimeStamp, Value ,Label\n2018-07-03 14:00:00,1.5,0\n2018-07-03 15:00:00,,1\n1530633600,NaN\n")
                .unwrap();
        let expected = [(1_530_626_400.0, Some(1.5)), (1_530_630_000.0, None), (1_530_633_600.0, None)];
        assert_eq!(times_and_values(&rows), expected);
        assert_eq!(rows[0].stamp, "2018-07-03 14:00:00");
        assert!(rows.iter().all(|row| !row.label));
        assert_eq!(read("a.csv", "time,cpu\n0,3\n").unwrap()[0].value(), Some(3.0));
    }

    #[test]
    fn labels_are_read_when_asked_for() {
        let text = "label,time,value\n1,0,5\n,1,5\n0,2,5\ntrue,3,5\n1.0,4,5\n";
        let rows = table("a.csv", text, |path| Table::open_labelled(path)?.collect::<Result<Vec<_>, _>>()).unwrap();
        assert_eq!(rows.iter().map(|row| row.label).collect::<Vec<_>>(), [true, false, false, true, true]);
        let told = table("a.csv", "time,value\n0,1\n", |path| Table::open_labelled(path).map(|_| ())).unwrap_err();
        assert!(told.contains("no column of labels"), "{told}");
    }

    #[test]
    fn several_columns_of_numbers_are_one_entity_and_text_is_left_unread() {
        let text = "host,time,cpu,is_anomaly,memory\nweb-1,0,1,0,\nweb-1,60,,0,4\nweb-1,120,oops,0,5\n";
        let (columns, unread, values) = table("a.csv", text, |path| {
            let table = Table::open(path)?;
            let (columns, unread) = (table.columns().to_vec(), table.unread().to_vec());
            Ok((columns, unread, table.map(|row| row.map(|row| row.values)).collect::<Result<Vec<_>, _>>()?))
        })
        .unwrap();
        assert_eq!((columns, unread), (vec!["cpu".to_owned(), "memory".to_owned()], vec!["host".to_owned()]));
        let gaps: Vec<Vec<bool>> = values.iter().map(|row| row.iter().map(|value| value.is_nan()).collect()).collect();
        assert_eq!(gaps, [[false, true], [true, false], [true, false]]);
        assert_eq!((values[0][0], values[1][1]), (1.0, 4.0));
    }

    #[test]
    fn json_lines_are_read_as_csv_is() {
        let text = "{\"@timestamp\":\"2018-07-03T14:00:00Z\",\"host\":{\"name\":\"web-1\"},\"system\":{\"cpu\":0.5,\"load\":2},\"label\":1}\n\
                    \n\
                    {\"@timestamp\":1530630000000,\"system.load\":3}\n";
        let rows = read("a.ndjson", text).unwrap();
        assert_eq!(rows[0].values, [0.5, 2.0]);
        assert_eq!((rows[1].time, rows[1].values[0].is_nan(), rows[1].values[1]), (1_530_630_000.0, true, 3.0));
        assert_eq!(rows[1].stamp, "1530630000000");
        assert!(!rows[0].label);
    }

    #[test]
    fn rows_without_a_header_have_numbered_columns_and_the_times_that_are_told() {
        let (columns, rows) = table("a.csv", "1,2,0\n3,NaN,1\n", |path| {
            let table = Table::open_headerless(path, 300.0, 60.0)?;
            Ok((table.columns().to_vec(), table.collect::<Result<Vec<_>, _>>()?))
        })
        .unwrap();
        assert_eq!(columns, ["1", "2", "3"]);
        assert_eq!((rows[1].time, rows[1].values[0], rows[1].values[2]), (360.0, 3.0, 1.0));
        assert!(rows[1].values[1].is_nan());
    }

    #[test]
    fn how_far_a_file_is_read_grows_to_its_length() {
        for (name, text) in
            [("a.csv", "time,value\n0,1\n60,2\n"), ("a.jsonl", "{\"time\":0,\"value\":1}\n{\"time\":60,\"value\":2}\n")]
        {
            let end = table(name, text, |path| {
                let mut table = Table::open(path)?;
                assert!(table.position() < text.len() as u64, "{name}");
                assert_eq!(table.by_ref().count(), 2, "{name}");
                Ok(table.position())
            });
            assert_eq!(end, Ok(text.len() as u64), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let csv = [
            "value\n1\n",
            "time,label\n0,1\n",
            "time,host\n0,web-1\n",
            "time,value\n0,1\nsoon,2\n",
            "0.5,0.25,3\n0.5,0.25,4\n",
            "time,value\n",
            "",
        ];
        let json = [
            "{\"value\":1}\n",
            "{\"time\":0,\"host\":\"web-1\"}\n",
            "{\"time\":0,\"value\":1}\n[1,2]\n",
            "{\"time\":0,\"value\":1}\n{\"time\":\"soon\",\"value\":1}\n",
            "{\"time\":0,\"value\":1}\n{\"value\":1}\n",
            "{\"time\":0,",
            "",
        ];
        let told = csv.iter().map(|text| ("file.csv", text)).chain(json.iter().map(|text| ("file.ndjson", text)));
        let told: Vec<String> = told
            .map(|(name, text)| read(name, text).map_or_else(|told| told, |rows| format!("{name}: {} rows", rows.len())))
            .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic_or_give_rows_of_another_width(text in "[ -~\n\u{e9}]{0,200}", json: bool) {
            let name = if json { "a.ndjson" } else { "a.csv" };
            let widths = table(name, &format!("time,a,b\n0,1,2\n{text}"), |path| {
                let table = Table::open(path)?;
                let width = table.columns().len();
                Ok(table.map_while(Result::ok).all(|row| row.values.len() == width && row.time.is_finite()))
            });
            proptest::prop_assert!(widths.unwrap_or(true));
        }
    }
}
