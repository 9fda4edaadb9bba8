//! Requests of SCGI: what is written comes back out of the netstring, for any names and values without NUL, and a NUL adds
//! no header.
#![cfg_attr(fuzzing, no_main)]

use buf::Buf;
use wire::scgi;

fn up_to_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&length, input)) = data.split_first() else { return };
    let pairs: Vec<_> = input.split(|byte| *byte == 0xff).map(|pair| pair.split_at(pair.len() / 3)).collect();
    let mut block = Vec::new();
    for (name, value) in &pairs {
        scgi::header(name, value, &mut block);
    }
    let mut out = Buf::empty();
    scgi::headers(u64::from(length), &block, &mut out);
    let colon = out.iter().position(|byte| *byte == b':').expect("it ends the size");
    let size: usize = std::str::from_utf8(&out[..colon]).expect("it is digits").parse().expect("it is a number");
    let (content, end) = out[colon + 1..].split_at(size);
    assert_eq!(end, b",");
    let mut words = content.split(|byte| *byte == 0);
    assert_eq!(words.next(), Some(&b"CONTENT_LENGTH"[..]));
    assert_eq!(words.next(), Some(length.to_string().as_bytes()));
    for (name, value) in pairs {
        assert_eq!(words.next(), Some(up_to_nul(name)));
        assert_eq!(words.next(), Some(up_to_nul(value)));
    }
    assert_eq!((words.next(), words.next()), (Some(&b""[..]), None));
});
