//! Small saturating counters, two in a byte where 15 is enough.

use serde::{Deserialize, Serialize};

/// Counters of the phases of a period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Two counters in each byte, or one.
    packed: bool,
    cells: Box<[u8]>,
}

impl Counts {
    /// `phases` counters that matter up to `most`; they saturate there or later.
    pub(crate) fn new(phases: usize, most: u8) -> Self {
        let packed = most <= 0x0f;
        Self { packed, cells: vec![0; if packed { phases.div_ceil(2) } else { phases }].into() }
    }

    /// The counter of `phase`; 0 beyond the last.
    pub(crate) fn get(&self, phase: usize) -> u8 {
        if !self.packed {
            return self.cells.get(phase).copied().unwrap_or(0);
        }
        let cell = self.cells.get(phase / 2).copied().unwrap_or(0);
        if phase.is_multiple_of(2) { cell & 0x0f } else { cell >> 4 }
    }

    /// Counts one more in `phase`; the counter then.
    pub(crate) fn add(&mut self, phase: usize) -> u8 {
        let count = self.get(phase);
        let (place, step, most) = match (self.packed, phase.is_multiple_of(2)) {
            (false, _) => (phase, 1, u8::MAX),
            (true, true) => (phase / 2, 1, 0x0f),
            (true, false) => (phase / 2, 0x10, 0x0f),
        };
        match self.cells.get_mut(place) {
            Some(cell) if count < most => {
                *cell += step;
                count + 1
            }
            _ => count,
        }
    }

    /// Whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| *cell == 0)
    }

    /// Heap memory in bytes.
    pub(crate) fn heap(&self) -> usize {
        self.cells.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_count_apart_and_saturate() {
        for (most, saturated) in [(4, 15), (20, 255)] {
            let mut counts = Counts::new(7, most);
            assert!(counts.is_empty());
            for _ in 0..300 {
                counts.add(3);
            }
            assert_eq!((counts.add(2), counts.add(6), counts.add(99)), (1, 1, 0));
            assert_eq!([2, 3, 4, 5, 6, 99].map(|phase| counts.get(phase)), [1, saturated, 0, 0, 1, 0]);
        }
        assert_eq!((Counts::new(7, 4).heap(), Counts::new(7, 20).heap()), (4, 7));
    }
}
