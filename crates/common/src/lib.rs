//! Modules that http and stream share.
#![forbid(unsafe_code)]
