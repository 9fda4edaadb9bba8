//! memcached's first lines: no panic, the same answer whole and cut, and a key is one word of the request, whatever is in it.
#![cfg_attr(fuzzing, no_main)]

use buf::Buf;
use wire::memcached::{self, Line};

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let (key, answer) = input.split_at(usize::from(cut).min(input.len()));
    let mut request = Buf::empty();
    memcached::get(key, &mut request);
    let sent = &request[memcached::key(&request)];
    assert!(sent.iter().all(|byte| *byte > b' '));
    assert_eq!(request[..], *[b"get ", sent, b"\r\n"].concat());

    let whole = memcached::first_line(answer, sent);
    match &whole {
        Ok(None) => assert!(!answer.contains(&b'\n')),
        Ok(Some((line, used))) => {
            assert!(answer[..*used].ends_with(b"\r\n"));
            assert_eq!(memcached::first_line(&answer[..*used], sent), Ok(Some((*line, *used))));
            assert_eq!(memcached::first_line(&answer[..used - 1], sent), Ok(None));
            if let Line::Value { flags, length } = line {
                let text = [b"VALUE ", sent, format!(" {flags} {length}\r\n").as_bytes()].concat();
                assert_eq!(memcached::first_line(&text, sent), Ok(Some((*line, text.len()))));
            }
        }
        Err(error) => assert!(error.text(answer, sent).to_string().starts_with("memcached sent invalid ")),
    }
});
