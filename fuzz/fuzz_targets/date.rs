//! Dates: what is read is written and read again as the same second.
#![cfg_attr(fuzzing, no_main)]

use wire::date::{format_http_time, parse_http_time};

tidegate_fuzz::target!(|data: &[u8]| {
    if let Some(seconds) = parse_http_time(data) {
        assert_eq!(parse_http_time(&format_http_time(seconds)), Some(seconds));
    }
    if let Some(bytes) = data.first_chunk() {
        format_http_time(i64::from_le_bytes(*bytes));
    }
});
