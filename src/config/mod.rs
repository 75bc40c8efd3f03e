//! Files become checked configuration.
