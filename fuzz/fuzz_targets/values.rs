//! Numbers, sizes and times of the configuration: whatever is accepted fits where nginx would put it.
#![cfg_attr(fuzzing, no_main)]

use buf::parse::{parse_msec, parse_number, parse_offset, parse_sec, parse_size};

tidegate_fuzz::target!(|data: &[u8]| {
    for parse in [parse_number, parse_size, parse_offset, parse_msec, parse_sec] {
        assert!(parse(data).is_none_or(|value| i64::try_from(value).is_ok()));
    }
    buf::escape::unescape_conf(data);
});
