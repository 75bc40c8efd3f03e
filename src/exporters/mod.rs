//! What gives something out.
