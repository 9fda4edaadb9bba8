//! Range headers: what is served lies inside the body.
#![cfg_attr(fuzzing, no_main)]

use wire::range::{Ranges, parse};

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&[length, max], value)) = data.split_first_chunk() else { return };
    if let Ranges::Satisfiable(ranges) = parse(value, u64::from(length), Some(usize::from(max))) {
        assert!(!ranges.is_empty() && ranges.len() <= usize::from(max));
        assert!(ranges.iter().all(|r| r.start < r.end && r.end <= u64::from(length)));
        assert!(ranges.iter().map(|r| r.len()).sum::<u64>() <= u64::from(length));
    }
    let _ = parse(value, u64::MAX, None);
});
