//! Names that people gave become names of folders.

use std::fmt::Write as _;

/// A folder's name for `text`: safe on every file system, and another one for every other text. Small letters, digits,
/// `-` and `_` stand for themselves, every other byte is written as `%2e`.
///
/// ```text
/// production -> production        detector/2 -> detector%2f2
/// ```
#[must_use]
pub fn folder_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            // Writing to a text does not fail.
            _ => drop(write!(name, "%{byte:02x}")),
        }
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_as_they_are() {
        let names = ["production", "eu-west_1", "Prod", "a/b", "..", "state.redb", ""].map(folder_name);
        assert_eq!(names, ["production", "eu-west_1", "%50rod", "a%2fb", "%2e%2e", "state%2eredb", "%"]);
    }

    proptest! {
        #[test]
        fn two_names_never_share_a_folder_even_where_case_does_not_count(a in ".{0,12}", b in ".{0,12}") {
            let (one, two) = (folder_name(&a), folder_name(&b));
            prop_assert_eq!(a == b, one.to_lowercase() == two.to_lowercase());
            prop_assert!(!one.contains(['/', '\\', '.', ':']));
        }
    }
}
