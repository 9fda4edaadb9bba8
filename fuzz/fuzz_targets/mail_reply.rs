//! Answers of mail servers: none before it is whole, and the same one when more bytes follow.
#![cfg_attr(fuzzing, no_main)]

use wire::mail::reply::{line, smtp, tagged};

tidegate_fuzz::target!(|data: &[u8]| {
    let more = [data, b"more"].concat();
    for cut in 0..=data.len().min(128) {
        let early = &data[..cut];
        for (part, whole) in [(line(early, b"+OK"), line(&more, b"+OK")), (tagged(early, b"a"), tagged(&more, b"a"))] {
            match part {
                Ok(None) => {}
                Ok(Some(length)) => assert!(length <= cut && part == whole),
                Err(_) => assert_eq!(part, whole),
            }
        }
        match smtp(early) {
            Ok(None) => {}
            found => assert_eq!(found, smtp(&more)),
        }
    }
});
