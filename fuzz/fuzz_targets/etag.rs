//! Entity tags: a strong match is a weak match too.
#![cfg_attr(fuzzing, no_main)]

use wire::etag::{if_match, if_none_match, if_range};

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&at, rest)) = data.split_first() else { return };
    let (etag, list) = rest.split_at(usize::from(at).min(rest.len()));
    for etag in [None, Some(etag), Some(b"\"a\"" as &[u8])] {
        let _ = if_range(list, etag);
        let (strong, weak) = (if_match(list, etag), if_none_match(list, etag));
        assert!(
            !strong
                || weak
                || list.starts_with(b"W/")
                || etag.is_some_and(|e| e.contains(&b',') || !e.starts_with(b"\""))
        );
    }
});
