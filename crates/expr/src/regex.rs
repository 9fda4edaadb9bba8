//! Regexes.
