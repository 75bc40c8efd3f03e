//! Models that expect a value; the distance to it is a raw surprise.

mod ar;
mod profile;

pub(crate) use ar::Autoregression;
pub(crate) use profile::Profile;
