//! What ends one pipeline and begins another.
