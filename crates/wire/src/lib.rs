//! Protocols without input and output.
#![forbid(unsafe_code)]
