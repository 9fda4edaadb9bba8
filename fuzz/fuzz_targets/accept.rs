//! Lists in header values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::accept::{accepts_encoding, has_token, tokens};

fuzz_target!(|data: &[u8]| {
    let _ = (accepts_encoding(data, b"gzip"), has_token(data, b"upgrade"));
    assert!(tokens(data).all(|token| !token.is_empty() && token.trim_ascii() == token));
});
