//! TLS connections of either side, from the hello to the end, by a script: see `tls::exercise`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tls::exercise::run(data));
