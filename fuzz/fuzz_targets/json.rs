//! JSON: whether a document is valid doesn't depend on what is looked for in it, and the value at a path doesn't depend on the
//! other paths.
#![cfg_attr(fuzzing, no_main)]

use wire::json::{Paths, Step, Values, parse_path};

/// The most depth.
const MOST: usize = 16;

tidegate_fuzz::target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|&byte| byte == b'\n') else { return };
    let (text, document) = (&data[..end], &data[end + 1..]);
    let nothing = Paths::default().extract(document, MOST);
    let Some(steps) = parse_path(text) else { return };
    let starts: Vec<&[Step]> = (1..=steps.len()).map(|end| &steps[..end]).collect();
    let together = look(document, &starts);
    assert_eq!(together.is_some(), nothing.is_some());
    let Some(together) = together else { return };
    for (start, value) in starts.iter().zip(together) {
        assert_eq!(look(document, &[start]), Some(vec![value]));
    }
});

fn look(document: &[u8], steps: &[&[Step]]) -> Option<Values> {
    let mut paths = Paths::default();
    for path in steps {
        paths.add(path);
    }
    paths.extract(document, MOST)
}
