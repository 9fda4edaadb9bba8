//! `Cache-Control`: no input panics, times are bounded, and lines read one after the other say what they say together.
#![cfg_attr(fuzzing, no_main)]

use wire::cache_control::{CacheControl, LONGEST, age};

tidegate_fuzz::target!(|data: &[u8]| {
    let mut whole = CacheControl::default();
    whole.read(data);
    let bounded = |control: &CacheControl| {
        let times = [control.max_age, control.s_maxage, control.stale_while_revalidate, control.stale_if_error];
        times.iter().flatten().all(|seconds| *seconds <= LONGEST)
    };
    assert!(bounded(&whole));
    assert!(age(data).is_none_or(|age| age <= LONGEST));
    if let Some(control) = CacheControl::of_dictionary(data) {
        assert!(bounded(&control));
    }
    if !data.contains(&b'"') {
        let mut lines = CacheControl::default();
        data.split(|byte| *byte == b',').for_each(|line| lines.read(line));
        assert_eq!(lines, whole);
    }
});
