//! Scripts of any bytes, and the fuzz target's seeds, some of which once ended in a panic.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_script(script in proptest::collection::vec(any::<u8>(), 5..300)) {
        run(&script);
    }
}

#[test]
fn honest_connections() {
    for head in 0..16u8 {
        let flags = [head & 1, head >> 1 & 1, head >> 2 & 1, head >> 3 & 1];
        for shaken in [0, 1] {
            // Data, half of it, new keys, data, another process, data, ours, the end.
            let steps: &[u8] = &[
                0, 4, 0x20, 0, 0, 2, 0, 99, 0, 0, 0, 5, 0, 4, 1, 0, 0, 0, 0, 8, 0, 4, 0, 9, 0, 0, 0, 7, 9, 0, 0, 6, 0,
                0,
            ];
            run(&[&flags[..], &[shaken], &[0, 0].repeat(if shaken == 1 { 0 } else { 4 }), steps].concat());
        }
    }
}

#[test]
fn seeds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/layer");
    let seeds: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(seeds.len() >= 10);
    seeds.iter().for_each(|script| run(script));
}
