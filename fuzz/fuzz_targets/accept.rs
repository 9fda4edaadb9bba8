//! Lists in header values.
#![cfg_attr(fuzzing, no_main)]

use wire::accept::{accepts_encoding, has_token, tokens};

tidegate_fuzz::target!(|data: &[u8]| {
    let _ = (accepts_encoding(data, b"gzip"), has_token(data, b"upgrade"));
    assert!(tokens(data).all(|token| !token.is_empty() && token.trim_ascii() == token));
});
