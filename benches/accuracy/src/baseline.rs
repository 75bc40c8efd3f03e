//! What a detector must be compared with: chance, and the calendar alone.

/// How much an alert must exceed the one before it, as in the detector.
const ESCALATION: f64 = 1.1;

/// Numbers that look random, the same on every machine (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Above 0, up to 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, standard deviation 1 (Box and Muller, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// What a model that knows nothing would call a surprise: -log10 of the chance of something as unusual.
    pub(crate) fn surprise(&mut self) -> f64 {
        -self.uniform().log10()
    }
}

/// One event, one alert, as in the detector: passes what clearly exceeds all that was passed in the last `points`.
#[derive(Clone, Debug)]
pub(crate) struct Refractory {
    points: u32,
    since: u32,
    top: f64,
}

impl Refractory {
    pub(crate) fn new(points: u32) -> Self {
        Self { points, since: 0, top: 0.0 }
    }

    pub(crate) fn pass(&mut self, score: f64) -> f64 {
        self.since = self.since.saturating_add(1);
        if self.since > self.points {
            self.top = 0.0;
        }
        if score > self.top * ESCALATION {
            (self.top, self.since) = (score, 0);
            return score;
        }
        0.0
    }
}

/// The longer a series is watched, the rarer an event must be.
pub(crate) fn penalty(seen: usize) -> f64 {
    0.5 * (seen.max(1) as f64 / 500.0).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_evenly_spread_and_the_same_each_time() {
        let mut chance = Chance::new(1);
        let numbers: Vec<f64> = (0..100_000).map(|_| chance.uniform()).collect();
        assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number) && *number > 0.0));
        let mean = numbers.iter().sum::<f64>() / 100_000.0;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let normal: Vec<f64> = (0..100_000).map(|_| chance.normal()).collect();
        let variance = normal.iter().map(|number| number * number).sum::<f64>() / 100_000.0;
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
        let mut again = Chance::new(1);
        assert!(numbers.iter().all(|number| *number == again.uniform()));
    }

    #[test]
    fn one_event_is_one_alert() {
        let mut refractory = Refractory::new(3);
        let passed = [2.0, 2.1, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0].map(|score| refractory.pass(score));
        assert_eq!(passed, [2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    }
}
