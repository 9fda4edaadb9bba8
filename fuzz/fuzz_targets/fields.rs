//! Blocks of header lines.
#![cfg_attr(fuzzing, no_main)]

tidegate_fuzz::target!(|data: &[u8]| {
    if let Ok(fields) = wire::h1::parse_fields(data, true, 64) {
        for field in fields {
            assert!(!field.name.is_empty() && field.name.end <= field.value.start);
            assert!(!field.value.of(data).iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
    }
});
