//! MQTT's CONNECT: an answer however it is cut, and the same one when more bytes follow.
#![cfg_attr(fuzzing, no_main)]

use wire::mqtt::parse;

tidegate_fuzz::target!(|data: &[u8]| {
    let whole = parse(data);
    for cut in 0..data.len().min(64) {
        match parse(&data[..cut]) {
            Ok(None) => {}
            early => assert_eq!(early, whole),
        }
    }
    let Ok(Some(connect)) = whole else { return };
    let _ = (connect.client_id.of(data), connect.username.map(|name| name.of(data)));
    assert_eq!(parse(&[data, b"more"].concat()), whole);
});
