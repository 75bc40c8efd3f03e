//! A seeded mutator: inputs like those of a corpus, the same ones for the same seed.

use fastrand::Rng;

/// Longest input that is made.
const LONGEST: usize = 16 << 10;
/// Numbers at the edges of their types, as text.
const NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "255",
    "65536",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e308",
    "-0.0",
];
/// Bytes that mean something in one format or another.
const BYTES: [u8; 16] = [0, 1, 0x0a, 0x12, 0x7f, 0x80, 0xff, b'"', b'\\', b'{', b'}', b'[', b']', b':', b',', b'\n'];

/// Makes inputs from a corpus.
#[derive(Debug)]
pub struct Mutator<'c> {
    corpus: Vec<&'c [u8]>,
    /// Words of the corpus: keys, field names.
    words: Vec<&'c [u8]>,
    rng: Rng,
}

impl<'c> Mutator<'c> {
    /// A mutator of `corpus`.
    #[must_use]
    pub fn new(corpus: impl IntoIterator<Item = &'c [u8]>, seed: u64) -> Self {
        let corpus: Vec<&[u8]> = corpus.into_iter().collect();
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
        let mut words: Vec<&[u8]> = corpus.iter().flat_map(|c| c.split(move |b| !is_word(b))).filter(|w| w.len() > 2).collect();
        words.sort_unstable();
        words.dedup();
        Self { corpus, words, rng: Rng::with_seed(seed) }
    }

    /// The next input.
    #[must_use]
    pub fn draw(&mut self) -> Vec<u8> {
        let mut input = self.pick(Self::corpus).to_vec();
        for _ in 0..self.rng.u32(1..=6) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn corpus<'m>(&'m self) -> &'m [&'c [u8]] {
        &self.corpus
    }

    fn words<'m>(&'m self) -> &'m [&'c [u8]] {
        &self.words
    }

    fn pick(&mut self, of: impl Fn(&Self) -> &[&'c [u8]]) -> &'c [u8] {
        let n = of(self).len();
        let at = self.rng.usize(0..n.max(1));
        of(self).get(at).copied().unwrap_or_default()
    }

    /// A part of `len` bytes: mostly a short one.
    fn part(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.rng.usize(0..=len);
        let most = if self.rng.u8(..) < 200 { 16 } else { len };
        start..(start + self.rng.usize(0..=most)).min(len)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let len = input.len();
        let at = self.rng.usize(0..=len);
        match self.rng.u8(0..9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.u8(0..8);
                }
            }
            1 => {
                let value = if self.rng.bool() { self.rng.choice(BYTES).unwrap_or(0) } else { self.rng.u8(..) };
                if let Some(byte) = input.get_mut(at) {
                    *byte = value;
                }
            }
            2 => {
                input.drain(self.part(len));
            }
            3 => {
                // The same again, once or very often.
                let part = input.get(self.part(len)).unwrap_or_default().to_vec();
                let times = if self.rng.u8(..) < 230 { 1 } else { self.rng.usize(2..200) };
                let times = times.min(LONGEST / part.len().max(1));
                input.splice(at..at, part.repeat(times));
            }
            4 => {
                let other = self.pick(Self::corpus);
                let part = other.get(self.part(other.len())).unwrap_or_default();
                let range = self.part(len);
                input.splice(range, part.iter().copied());
            }
            5 => {
                let word = self.pick(Self::words);
                let range = if self.rng.bool() { word_at(input, at) } else { at..at };
                input.splice(range, word.iter().copied());
            }
            6 => {
                let number = self.rng.choice(NUMBERS).unwrap_or("0");
                let range = word_at(input, at);
                input.splice(range, number.bytes());
            }
            7 => {
                let bytes = [self.rng.u8(..), self.rng.u8(..), self.rng.u8(..)];
                input.splice(at..at, bytes.into_iter().take(1 + usize::from(self.rng.u8(0..3))));
            }
            _ => input.truncate(at),
        }
        input.truncate(LONGEST);
    }
}

/// The word or number around `at`.
fn word_at(input: &[u8], at: usize) -> std::ops::Range<usize> {
    let inside = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let (before, after) = input.split_at(at.min(input.len()));
    let start = before.len() - before.iter().rev().take_while(|b| inside(b)).count();
    start..before.len() + after.iter().take_while(|b| inside(b)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_another_seed_others() {
        let corpus: [&[u8]; 2] = [b"{\"name\": 1}", b"first second"];
        let make = |seed| {
            let mut mutator = Mutator::new(corpus, seed);
            (0..200).map(|_| mutator.draw()).collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(1).iter().all(|input| input.len() <= LONGEST));
    }

    #[test]
    fn an_empty_corpus_makes_inputs_too() {
        let mut mutator = Mutator::new([], 1);
        assert!((0..200).any(|_| !mutator.draw().is_empty()));
    }
}
