//! RDP's connection request: an answer however it is cut, and the same one when more bytes follow.
#![cfg_attr(fuzzing, no_main)]

use wire::rdp::{field, parse};

tidegate_fuzz::target!(|data: &[u8]| {
    let whole = parse(data);
    for cut in 0..data.len().min(64) {
        match parse(&data[..cut]) {
            Ok(None) => {}
            early => assert_eq!(early, whole),
        }
    }
    let Ok(Some(request)) = whole else { return };
    if let Some(cookie) = request.cookie {
        let _ = field(cookie.of(data), b"mstshash");
    }
    assert_eq!(parse(&[data, b"more"].concat()), whole);
});
