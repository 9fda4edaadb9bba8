//! Blocks of header lines.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(fields) = wire::h1::parse_fields(data, true, 64) {
        for field in fields {
            assert!(!field.name.is_empty() && field.name.end <= field.value.start);
            assert!(!field.value.of(data).iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
    }
});
