//! ClientHello: whatever the bytes, an answer; and a whole message stays one when more bytes follow.
#![cfg_attr(fuzzing, no_main)]

use wire::hello::{old_version, parse};

tidegate_fuzz::target!(|data: &[u8]| {
    let _ = old_version(data);
    let Ok(Some(hello)) = parse(data) else { return };
    let _ = (hello.protocols().count(), hello.offers(0x0304), hello.highest_version());
    let mut longer = data.to_vec();
    longer.extend_from_slice(b"more");
    assert_eq!(parse(&longer), Ok(Some(hello)));
});
