//! Paths: a canonical path is its own canonical form; escapes round-trip.
#![cfg_attr(fuzzing, no_main)]

use wire::uri::{Escape, escape, escape_html, escaped_len, is_simple, normalize, unescape};

tidegate_fuzz::target!(|data: &[u8]| {
    let (mut out, mut again, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for merge in [true, false] {
        let Ok(found) = normalize(data, merge, &mut out) else { continue };
        assert!(out.first() == Some(&b'/') && !out.contains(&0));
        assert!(!out.windows(4).any(|w| w == b"/../") && !out.ends_with(b"/.."));
        assert!(found.args.is_none_or(|args| args.end as usize <= data.len()));
        if is_simple(data) {
            assert_eq!(out, data);
        }
        again.clear();
        escape(Escape::Uri, &out, &mut again);
        normalize(&again, merge, &mut back).unwrap();
        assert_eq!(out, back);
    }
    for kind in [Escape::Uri, Escape::Args, Escape::UriComponent, Escape::Memcached] {
        again.clear();
        back.clear();
        escape(kind, data, &mut again);
        assert_eq!(again.len(), escaped_len(kind, data));
        unescape(&again, &mut back);
        assert_eq!(back, data);
    }
    escape_html(data, &mut out);
});
