//! Models that expect a value; the distance to it is a raw surprise.

mod ar;
mod counts;
mod profile;
mod spread;

pub(crate) use ar::Autoregression;
pub(crate) use profile::Profile;
pub(crate) use spread::Spread;

/// Which of `phases` equal parts of a period of `period` seconds `time` is in.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the phase is in 0..phases")]
fn phase(time: f64, period: f64, phases: usize) -> usize {
    let phase = (time.rem_euclid(period) / period * phases as f64) as usize;
    if phase >= phases { 0 } else { phase }
}
