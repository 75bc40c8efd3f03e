//! What the daemon says about itself: logs, traces and metrics.
