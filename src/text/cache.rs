//! What texts stand for, kept so that what repeats is made once.

use hashbrown::HashMap;

/// What one entry costs beside its text and what the value says of itself.
const ENTRY: usize = 96;

/// A cache by text, bounded in bytes: texts come from outside, and an attribute with ever new values would fill it.
/// When it is full it starts anew, which costs nothing but that what is still used is made once more.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    known: HashMap<Box<str>, V>,
    bytes: usize,
    limit: usize,
}

impl<V> Cache<V> {
    /// At most `limit` bytes, or one entry if that is larger.
    pub(crate) fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), bytes: 0, limit }
    }

    /// What `text` stands for, if that is known.
    pub(crate) fn get(&self, text: &str) -> Option<&V> {
        self.known.get(text)
    }

    /// Keeps that `text` stands for `value`, which holds `heap` bytes beside itself.
    pub(crate) fn insert(&mut self, text: &str, value: V, heap: usize) {
        let bytes = ENTRY + size_of::<V>() + text.len() + heap;
        if self.bytes + bytes > self.limit {
            self.known = HashMap::new();
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.known.insert(text.into(), value);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_knows_what_was_put_in_last_and_never_holds_more_than_its_bytes(sizes in prop::collection::vec(0usize..2000, 1..300)) {
            let mut cache = Cache::new(10_000);
            for (i, size) in sizes.into_iter().enumerate() {
                let text = format!("{i}{}", "x".repeat(size));
                cache.insert(&text, i, size);
                prop_assert_eq!(cache.get(&text), Some(&i));
                let held: usize = cache.known.keys().map(|k| 2 * k.len() - i.to_string().len().min(k.len()) + ENTRY).sum();
                prop_assert!(held <= 10_000 + 200, "{} bytes in {} entries", held, cache.len());
            }
        }
    }
}
