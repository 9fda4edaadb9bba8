//! Variables, compiled templates, regexes with captures, lookup tables.
#![forbid(unsafe_code)]
