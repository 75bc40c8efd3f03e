//! The strings of one batch, each stored once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

/// A string of a batch: an index into its [`Symbols`]. Equal symbols of one batch are equal strings
/// (the reverse holds for strings that were interned, not for those that were pushed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Symbol(u32);

impl Symbol {
    /// The empty string, in every batch.
    pub const EMPTY: Self = Self(0);

    /// Its place in the dictionary.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A dictionary of the strings of one batch, over one contiguous text: no allocation per string.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Symbols {
    text: String,
    /// End of each string in `text`; the string starts where the one before ends.
    ends: Vec<usize>,
    #[serde(skip)]
    index: HashTable<u32>,
    #[serde(skip)]
    hasher: DefaultHashBuilder,
}

/// A dictionary as it is stored: the texts, one after the other.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct Stored {
    text: String,
    ends: Vec<usize>,
}

impl From<Stored> for Symbols {
    /// Texts are found again by their first symbol. Ends that are no borders of texts read as empty ones.
    fn from(stored: Stored) -> Self {
        let Stored { text, ends } = stored;
        let mut symbols = Self { text, ends, ..Self::new() };
        if symbols.ends.is_empty() {
            symbols.ends.push(0);
        }
        for place in 1..u32::try_from(symbols.ends.len()).unwrap_or(u32::MAX) {
            let (all, ends, hasher) = (&symbols.text, &symbols.ends, &symbols.hasher);
            let found = slice(all, ends, place);
            let hash = hasher.hash_one(found);
            let entry = symbols.index.entry(hash, |&i| slice(all, ends, i) == found, |&i| hasher.hash_one(slice(all, ends, i)));
            entry.or_insert(place);
        }
        symbols
    }
}

impl Default for Symbols {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbols {
    /// A dictionary that holds only the empty string.
    #[must_use]
    pub fn new() -> Self {
        Self { text: String::new(), ends: vec![0], index: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }

    /// The symbol of `text`, the same one for the same text. For what repeats: names, keys, services.
    pub fn intern(&mut self, text: &str) -> Symbol {
        if text.is_empty() {
            return Symbol::EMPTY;
        }
        let hash = self.hasher.hash_one(text);
        if let Some(&found) = self.index.find(hash, |&i| slice(&self.text, &self.ends, i) == text) {
            return Symbol(found);
        }
        let symbol = self.push(text);
        let (all, ends, hasher) = (&self.text, &self.ends, &self.hasher);
        self.index.insert_unique(hash, symbol.0, |&i| hasher.hash_one(slice(all, ends, i)));
        symbol
    }

    /// A new symbol for `text`, without looking whether it is there. For what does not repeat: log bodies.
    pub fn push(&mut self, text: &str) -> Symbol {
        let next = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        self.text.push_str(text);
        self.ends.push(self.text.len());
        Symbol(next)
    }

    /// The symbol of a string that was interned before, if there is one.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<Symbol> {
        if text.is_empty() {
            return Some(Symbol::EMPTY);
        }
        let hash = self.hasher.hash_one(text);
        self.index.find(hash, |&i| slice(&self.text, &self.ends, i) == text).map(|&i| Symbol(i))
    }

    /// The text of `symbol`; empty for a symbol of another batch that is not here.
    #[must_use]
    pub fn get(&self, symbol: Symbol) -> &str {
        slice(&self.text, &self.ends, symbol.0)
    }

    /// How many symbols there are, the empty one included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether only the empty string is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.len() == 1
    }
}

fn slice<'a>(text: &'a str, ends: &[usize], index: u32) -> &'a str {
    let index = index as usize;
    let start = index.checked_sub(1).and_then(|i| ends.get(i)).copied().unwrap_or(0);
    ends.get(index).and_then(|&end| text.get(start..end)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_the_same_symbol_and_reads_back() {
        let mut symbols = Symbols::new();
        let words = ["checkout", "", "GET /pay", "checkout", "ünï"];
        let found: Vec<_> = words.iter().map(|w| symbols.intern(w)).collect();
        assert_eq!(found[0], found[3]);
        assert_eq!(found[1], Symbol::EMPTY);
        for (word, symbol) in words.iter().zip(&found) {
            assert_eq!(symbols.get(*symbol), *word);
            assert_eq!(symbols.find(word), Some(*symbol));
        }
        assert_eq!(symbols.find("absent"), None);
    }

    #[test]
    fn a_stored_dictionary_reads_back_and_finds_its_texts_again() {
        let mut symbols = Symbols::new();
        let [cart, pay] = ["cart", "GET /pay"].map(|text| symbols.intern(text));
        let pushed = symbols.push("cart");
        let bytes = postcard::to_stdvec(&symbols).unwrap();
        let mut back: Symbols = postcard::from_bytes(&bytes).unwrap();
        assert_eq!([cart, pay, pushed].map(|symbol| back.get(symbol)), ["cart", "GET /pay", "cart"]);
        assert_eq!((back.find("cart"), back.intern("GET /pay"), back.find("absent")), (Some(cart), pay, None));
        assert_eq!(back.intern("new").index(), 4);
    }

    #[test]
    fn a_damaged_dictionary_reads_as_empty_texts() {
        for ends in [vec![], vec![0, 9], vec![0, 3, 1], vec![7]] {
            let bytes = postcard::to_stdvec(&Stored { text: "ünï".to_owned(), ends }).unwrap();
            let back: Symbols = postcard::from_bytes(&bytes).unwrap();
            for place in 0..4 {
                assert!(back.get(Symbol(place)).len() <= 5);
            }
        }
    }

    #[test]
    fn a_symbol_of_another_batch_reads_as_empty() {
        let mut other = Symbols::new();
        let foreign = other.intern("x");
        assert_eq!(Symbols::new().get(foreign), "");
    }
}
