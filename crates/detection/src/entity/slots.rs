//! What an entity remembers of each of its series, and where.

use serde::{Deserialize, Serialize};

use super::moments::Moments;

/// Series of an entity that are remembered together; of more, those that vary.
pub const MOST_CHANNELS: usize = 64;

/// A number for each remembered series, `None` where it has no value at this step.
pub(super) type Row = [Option<f64>; MOST_CHANNELS];

/// What is remembered of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    /// The caller's number of the series.
    index: u32,
    /// Values learnt.
    pub(super) seen: u32,
    /// Steps since its last value.
    absent: u32,
    /// Residuals known.
    pub(super) judged: u32,
    /// Its values.
    pub(super) level: Moments,
    /// Distances to what was expected of it.
    pub(super) residual: Moments,
    /// Its own surprise, gathered over the last minutes.
    pub(super) surprise: f64,
}

/// The remembered series, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

/// Where a series is remembered, and whether that place was just given to it.
pub(super) enum Place {
    Known(usize),
    New(usize),
}

impl Slots {
    pub(super) fn heap(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    /// The place of a series; `hint` is where it probably is. `patience` is after how many steps the place of an
    /// absent or constant series may be given away. `None` when all are taken.
    pub(super) fn place(&mut self, index: u32, hint: usize, patience: u32) -> Option<Place> {
        if self.slots.get(hint).is_some_and(|slot| slot.index == index) {
            return Some(Place::Known(hint));
        }
        if let Some(place) = self.find(index) {
            return Some(Place::Known(place));
        }
        let place = self.slots.len();
        if place < MOST_CHANNELS {
            self.slots.push(Slot { index, ..Slot::default() });
            return Some(Place::New(place));
        }
        let useless = |slot: &Slot| slot.absent > patience || (slot.seen > patience && slot.level.is_constant());
        let place = self.slots.iter().position(useless)?;
        *self.slots.get_mut(place)? = Slot { index, ..Slot::default() };
        Some(Place::New(place))
    }

    /// The place of a series that is remembered.
    pub(super) fn find(&self, index: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.index == index)
    }

    pub(super) fn get(&self, place: usize) -> Option<&Slot> {
        self.slots.get(place)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Slot> {
        self.slots.get_mut(place)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Counts the step for series without a value.
    pub(super) fn pass(&mut self, present: &Row) {
        for (slot, value) in self.slots.iter_mut().zip(present) {
            slot.absent = if value.is_some() { 0 } else { slot.absent.saturating_add(1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(slots: &mut Slots, index: u32, hint: usize) -> Option<usize> {
        match slots.place(index, hint, 100)? {
            Place::Known(place) | Place::New(place) => Some(place),
        }
    }

    #[test]
    fn series_keep_their_places_in_whatever_order_they_come() {
        let mut slots = Slots::default();
        let places: Vec<_> = [7, 3, 900].iter().map(|index| place(&mut slots, *index, 0)).collect();
        assert_eq!(places, [Some(0), Some(1), Some(2)]);
        let places: Vec<_> = [900, 7, 3].iter().zip(0..).map(|(index, hint)| place(&mut slots, *index, hint)).collect();
        assert_eq!(places, [Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn when_all_places_are_taken_a_series_that_varies_takes_that_of_an_absent_or_constant_one() {
        let mut slots = Slots::default();
        for index in 0..MOST_CHANNELS as u32 {
            place(&mut slots, index, 0);
        }
        for (number, slot) in slots.iter_mut().enumerate() {
            slot.seen = 500;
            (0..500).for_each(|seen| slot.level.learn(if number == 9 { 1.0 } else { f64::from(seen) }, seen, 0.1));
        }
        assert_eq!(place(&mut slots, 1000, 0), Some(9), "the constant one");
        assert_eq!(place(&mut slots, 1001, 0), None);
        let mut present: Row = [Some(1.0); MOST_CHANNELS];
        present[4] = None;
        (0..101).for_each(|_| slots.pass(&present));
        assert_eq!(place(&mut slots, 1001, 0), Some(4), "the absent one");
    }
}
