//! Files that components read when they are made, as part of their configuration: a reload sees that one has changed,
//! and the journal of a detector holds what it was, so that a replay does not depend on what stands there now.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// The largest file in bytes.
const LARGEST: u64 = 4 << 20;

/// A file of text that is read once. In a configuration file it is the path; [`take_in`] adds what stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    path: PathBuf,
    text: Option<Arc<str>>,
}

impl TextFile {
    /// The file at `path`, which is not read yet.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path, text: None }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stood in it when the configuration was read, else what stands in it now.
    ///
    /// # Errors
    /// Why it cannot be read, without its path: it is not there, has more than 4 MiB, or is no text in UTF-8.
    pub fn read(&self) -> Result<Cow<'_, str>, String> {
        self.text.as_deref().map_or_else(|| read(&self.path).map(Cow::Owned), |text| Ok(Cow::Borrowed(text)))
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > LARGEST { Err("it has more than 4 MiB".to_owned()) } else { Ok(text) }
}

impl<'de> Deserialize<'de> for TextFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Path(PathBuf),
            Read { path: PathBuf, text: Arc<str> },
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Path(path) => Self { path, text: None },
            Written::Read { path, text } => Self { path, text: Some(text) },
        })
    }
}

impl JsonSchema for TextFile {
    fn schema_name() -> Cow<'static, str> {
        PathBuf::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PathBuf::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Adds to `config` what stands in the files that `keys` name in it (`tls.ca_file`; `*` is every item of a list). A file
/// that cannot be read is left to whoever reads it later and tells why.
pub(super) fn take_in(config: &mut Value, keys: &[&str]) {
    for key in keys {
        add(config, &mut key.split('.'));
    }
}

fn add<'a>(value: &mut Value, keys: &mut (impl Iterator<Item = &'a str> + Clone)) {
    let Some(key) = keys.next() else {
        if let Some(path) = value.as_str()
            && let Ok(text) = read(Path::new(path))
        {
            *value = json!({ "path": path, "text": text });
        }
        return;
    };
    match value {
        Value::Array(items) if key == "*" => items.iter_mut().for_each(|item| add(item, &mut keys.clone())),
        Value::Object(fields) => fields.get_mut(key).into_iter().for_each(|field| add(field, &mut keys.clone())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Config {
        file: TextFile,
    }

    #[test]
    fn a_file_is_read_once_with_its_configuration_and_stays_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "first").unwrap();
        let mut config = json!({ "list": [{ "file": path }, { "other": 1 }, { "file": "nowhere" }] });
        take_in(&mut config, &["list.*.file", "not.there"]);
        std::fs::write(&path, "second").unwrap();
        let read = |value: &Value| Config::deserialize(value).unwrap().file;
        let (taken, missing) = (read(&config["list"][0]), read(&config["list"][2]));
        assert_eq!((taken.path(), taken.read().unwrap()), (path.as_path(), Cow::Borrowed("first")));
        assert_eq!(TextFile::at(path).read().unwrap(), "second");
        assert!(missing.read().unwrap_err().contains("No such file"));
        // Once more changes nothing: what is taken in is no path.
        let before = config.clone();
        take_in(&mut config, &["list.*.file"]);
        assert_eq!(config, before);
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, vec![b'a'; LARGEST as usize + 1]).unwrap();
        assert_eq!(TextFile::at(path.clone()).read().unwrap_err(), "it has more than 4 MiB");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(TextFile::at(path).read().unwrap_err().contains("UTF-8"));
    }
}
