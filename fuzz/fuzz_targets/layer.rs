//! TLS connections of either side, from the hello to the end, by a script: see `tls::exercise`.
#![cfg_attr(fuzzing, no_main)]

tidegate_fuzz::target!(|data: &[u8]| tls::exercise::run(data));
