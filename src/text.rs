//! Small helpers for messages that people read.

/// The candidate that `typed` most likely meant, if one is near enough to suggest.
pub(crate) fn closest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&wanted, &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= (wanted.chars().count().max(c.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// At most the first `bytes` bytes of `text`, cut between characters.
pub(crate) fn clip(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::{clip, closest};

    #[test]
    fn a_clipped_text_ends_between_characters() {
        assert_eq!(clip("naïve", 3), "na");
        assert_eq!(clip("naïve", 4), "naï");
        assert_eq!(clip("naïve", 99), "naïve");
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["grpc", "http", "endpoint"];
        assert_eq!(closest("grcp", keys), Some("grpc"));
        assert_eq!(closest("Endpiont", keys), Some("endpoint"));
        assert_eq!(closest("elasticsearch", keys), None);
    }
}
