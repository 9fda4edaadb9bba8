//! Variables, compiled templates, regexes with captures, lookup tables.
//!
//! Everything here is built once, from the configuration, and then only read: names become [`vars::VarId`]s, values
//! become [`vars::Template`]s, patterns become [`regex::Regex`]es, lists of names and networks become the tables of
//! [`lookup`]. Nothing reads a clock, opens anything or knows a protocol.
#![forbid(unsafe_code)]

pub mod lookup;
pub mod regex;
pub mod vars;
