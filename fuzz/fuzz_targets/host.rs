//! Hosts: what is accepted is accepted again in its canonical form.
#![cfg_attr(fuzzing, no_main)]

use wire::uri::validate_host;

tidegate_fuzz::target!(|data: &[u8]| {
    if let Ok(parts) = validate_host(data) {
        assert!(!parts.host.is_empty() && !parts.host.iter().any(u8::is_ascii_uppercase));
        let again = validate_host(&parts.host).unwrap();
        assert_eq!(again.host, parts.host);
    }
});
