//! Simulated services that show the daemon at work.
