//! Drives a codec by a response that comes in pieces, for the tests of each protocol.

use buf::Buf;

use crate::protocol::{BodyEvent, Codec, End, Head, HeadEvent, Note, ProtocolError};

/// What a response means, as text: the head and the end as `head` and `end` show them, notes in brackets, the body. The
/// response comes in pieces of `size` bytes.
pub(crate) fn events(
    codec: &mut dyn Codec,
    input: &[u8],
    size: usize,
    head: impl Fn(&Head, Option<u64>) -> String,
    end: impl Fn(End) -> String,
) -> String {
    let (mut out, mut body, mut found) = (String::new(), Vec::new(), Head::default());
    let mut pieces = input.chunks(size);
    let mut more = |codec: &mut dyn Codec| match pieces.next() {
        Some(piece) => {
            let mut buf = Buf::empty();
            buf.extend_from_slice(piece);
            codec.receive(buf);
            Ok(())
        }
        None => codec.receive_end(),
    };
    let note = |note: Note| format!("[{:?} {}] ", note.level, note.text);
    let show = |error: ProtocolError| format!("{:?} {}", error.fault, error.text);
    loop {
        match codec.read_head(&mut found) {
            Ok(HeadEvent::More) => {
                if let Err(error) = more(codec) {
                    return out + &show(error);
                }
            }
            Ok(HeadEvent::Done(length)) => {
                out += &head(&found, length);
                out.push(' ');
                break;
            }
            Ok(HeadEvent::Note(text)) => out += &note(text),
            Ok(HeadEvent::Interim) => return "no such events".to_owned(),
            Err(error) => return out + &show(error),
        }
    }
    let end = loop {
        match codec.read_body() {
            Ok(BodyEvent::More) => {
                if let Err(error) = more(codec) {
                    break show(error);
                }
            }
            Ok(BodyEvent::Note(text)) => out += &note(text),
            Ok(BodyEvent::Body(part)) => body.extend_from_slice(&part),
            Ok(BodyEvent::End(found)) => break end(found),
            Ok(BodyEvent::Trailers(_)) => break "no such events".to_owned(),
            Err(error) => break show(error),
        }
    };
    format!("{out}{} {end}", String::from_utf8_lossy(&body))
}
