//! A client against any server: the same outcome however the bytes are cut, windows are kept, and what is sent is made of
//! well-formed frames.
#![cfg_attr(fuzzing, no_main)]

use buf::{Buf, Bytes, Chain, Piece};
use wire::h2::{Client, ClientEvent, ClientLimits, Frame, FrameReader, PREFACE, ServerFault};

/// A request's head in HPACK: `GET http://a/`.
const BLOCK: &[u8] = b"\x82\x86\x84\x01\x01a";

/// What a server's bytes meant.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    heads: Vec<(u16, usize)>,
    body: Vec<u8>,
    trailers: usize,
    serves_on: bool,
    fault: Option<ServerFault>,
}

/// Reads what was sent; gives back the bytes of DATA.
struct Sent {
    reader: FrameReader,
    begun: bool,
}

impl Sent {
    fn take(&mut self, chain: &mut Chain) -> u64 {
        let (mut input, mut data) = (Buf::empty(), 0);
        for piece in std::mem::take(chain).pieces() {
            let Piece::Bytes(bytes) = piece else { continue };
            input.extend_from_slice(bytes);
        }
        let mut input = input.freeze();
        if !input.is_empty() && !std::mem::replace(&mut self.begun, true) {
            assert!(input.starts_with(PREFACE));
            input.advance(PREFACE.len());
        }
        while let Some(frame) = self.reader.next(&mut input).expect("well-formed") {
            if let Frame::Data { bytes, .. } = frame {
                data += bytes.len() as u64;
            }
        }
        assert!(self.reader.is_between_frames());
        data
    }
}

fn run(limits: ClientLimits, has_body: bool, to_head: bool, input: &[u8], cut: usize) -> Outcome {
    let (mut client, mut outcome, mut out) = (Client::new(), Outcome::default(), Chain::new());
    let mut sent = Sent { reader: FrameReader::new((1 << 24) - 1), begun: false };
    let begin = |client: &mut Client, out: &mut Chain| {
        client.begin(limits, to_head);
        client.head(BLOCK, !has_body);
        client.transmit(out);
        if has_body {
            client.body(Chain::from(Bytes::from(vec![b'x'; 70_000])), true, out);
        }
    };
    begin(&mut client, &mut out);
    for part in input.chunks(cut) {
        let room = client.window();
        client.receive(Bytes::copy_from(part));
        loop {
            match client.next_event() {
                Ok(ClientEvent::More | ClientEvent::End) => break,
                Ok(ClientEvent::Interim | ClientEvent::Head) => {
                    let head = client.head_mut();
                    assert!(head.text.len() <= limits.head);
                    outcome.heads.push((head.status, head.fields.len()));
                }
                Ok(ClientEvent::Data(bytes)) => outcome.body.extend_from_slice(&bytes),
                Ok(ClientEvent::Trailers) => outcome.trailers += 1,
                Err(fault) => {
                    outcome.fault = Some(fault);
                    return outcome;
                }
            }
        }
        sent.take(&mut out);
        let more = client.window();
        client.transmit(&mut out);
        let data = sent.take(&mut out);
        assert!(data <= room.max(more) + 70_000);
    }
    // How much of a request's body was sent when the response was complete depends on how that came.
    outcome.serves_on = client.serves_on() && !has_body;
    if client.serves_on() {
        client.rest();
        begin(&mut client, &mut out);
        sent.take(&mut out);
    }
    outcome
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&[choice, cut], input)) = data.split_first_chunk() else { return };
    let limits = ClientLimits { head: [50, 500, 5000, 50_000][usize::from(choice & 3)] };
    let (has_body, to_head) = (choice & 4 != 0, choice & 8 != 0);
    let whole = run(limits, has_body, to_head, input, usize::MAX);
    assert_eq!(run(limits, has_body, to_head, input, usize::from(cut) + 1), whole);
});
