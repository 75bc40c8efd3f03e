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

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["grpc", "http", "endpoint"];
        assert_eq!(closest("grcp", keys), Some("grpc"));
        assert_eq!(closest("Endpiont", keys), Some("endpoint"));
        assert_eq!(closest("elasticsearch", keys), None);
    }
}
