//! The vectors of RFC 7541 appendix C, limits, and round trips.

use buf::Buf;
use proptest::prelude::*;

use super::*;
use crate::h1::KnownHeader;

const LIMITS: FieldLimits = FieldLimits { field: 8192, text: 65536 };

/// Name and value.
type Pair = (Vec<u8>, Vec<u8>);
/// A block, its fields, and the size of the table after it.
type Vector<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Decodes a block that is cut into parts at `cut`, as frames would cut it.
fn decode(decoder: &mut Decoder, block: &[u8], cut: usize, limits: FieldLimits) -> Result<Vec<Pair>, DecodeError> {
    let (mut text, mut fields) = (Buf::empty(), Vec::new());
    decoder.begin();
    let mut carry = Vec::new();
    for part in [&block[..cut], &block[cut..]] {
        carry.extend_from_slice(part);
        let mut rest = &carry[..];
        while let Some(field) = decoder.next(&mut rest, &mut text, limits)? {
            fields.push((field.name.of(&text).to_vec(), field.value.of(&text).to_vec()));
        }
        carry = rest.to_vec();
    }
    decoder.check_invariants();
    if carry.is_empty() { Ok(fields) } else { Err(DecodeError::Truncated) }
}

fn check_sequence(blocks: &[Vector<'_>], max_size: usize) {
    for cut_of in 0..64 {
        let mut decoder = Decoder::new();
        let update = [0x3f, (max_size - 31) as u8 & 127 | 128, ((max_size - 31) >> 7) as u8];
        decode(&mut decoder, &update, 0, LIMITS).unwrap();
        for (block, expected, table_size) in blocks {
            let block = hex(block);
            let fields = decode(&mut decoder, &block, cut_of.min(block.len()), LIMITS).unwrap();
            let expected: Vec<_> =
                expected.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            assert_eq!(fields, expected);
            assert_eq!(decoder.table_size(), *table_size);
        }
    }
}

const REQUEST_1: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const REQUEST_2: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const REQUEST_3: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];
const DATE_1: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const DATE_2: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
const LOCATION: &str = "https://www.example.com";
const RESPONSE_1: &[(&str, &str)] =
    &[(":status", "302"), ("cache-control", "private"), ("date", DATE_1), ("location", LOCATION)];
const RESPONSE_2: &[(&str, &str)] =
    &[(":status", "307"), ("cache-control", "private"), ("date", DATE_1), ("location", LOCATION)];
const RESPONSE_3: &[(&str, &str)] = &[
    (":status", "200"),
    ("cache-control", "private"),
    ("date", DATE_2),
    ("location", LOCATION),
    ("content-encoding", "gzip"),
    ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
];

/// What is sent again is found by its number, whatever has entered or fallen out meanwhile.
#[test]
fn known_fields_are_found_again() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for round in 0..300_u32 {
        let date = format!("Mon, 21 Oct 2013 20:13:{:02} GMT", round / 3 % 60);
        let size = [4096, 100, 0, 500][round as usize / 75];
        encoder.set_max_size(size);
        let fields = [
            (KnownHeader::Server, "tidegate"),
            (KnownHeader::Date, &date[..]),
            (KnownHeader::ContentType, if round % 7 == 0 { "text/css" } else { "text/html" }),
            (KnownHeader::Vary, "Accept-Encoding"),
        ];
        let mut block = Buf::empty();
        encoder.begin(&mut block);
        for (known, value) in fields {
            encoder.known(known, value.as_bytes(), Indexing::Incremental, &mut block);
        }
        encoder.check_invariants();
        let decoded = decode(&mut decoder, &block, 0, LIMITS).unwrap();
        let expect = fields.map(|(known, value)| (known.name().as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert_eq!(decoded, expect);
        if size == 4096 && !round.is_multiple_of(3) && round > 10 {
            assert_eq!(block.len(), 4, "each is an index");
        }
    }
}

#[test]
fn single_fields_of_the_rfc() {
    for (block, name, value, size, never) in [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key", "custom-header", 55, false),
        ("040c 2f73 616d 706c 652f 7061 7468", ":path", "/sample/path", 0, false),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password", "secret", 0, true),
        ("82", ":method", "GET", 0, false),
    ] {
        let (mut decoder, mut text) = (Decoder::new(), Buf::empty());
        let block = hex(block);
        let mut rest = &block[..];
        let field = decoder.next(&mut rest, &mut text, LIMITS).unwrap().unwrap();
        assert_eq!((field.name.of(&text), field.value.of(&text)), (name.as_bytes(), value.as_bytes()));
        assert_eq!((field.never_indexed, rest.len(), decoder.table_size()), (never, 0, size));
    }
}

#[test]
fn requests_of_the_rfc() {
    let plain = [
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUEST_1, 57),
        ("8286 84be 5808 6e6f 2d63 6163 6865", REQUEST_2, 110),
        ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUEST_3, 164),
    ];
    check_sequence(&plain, 4096);
    let huffman = [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUEST_1, 57),
        ("8286 84be 5886 a8eb 1064 9cbf", REQUEST_2, 110),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUEST_3, 164),
    ];
    check_sequence(&huffman, 4096);
}

#[test]
fn responses_of_the_rfc() {
    let plain = [
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 \
             474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            RESPONSE_1,
            222,
        ),
        ("4803 3330 37c1 c0bf", RESPONSE_2, 222),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 \
             666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 \
             3630 303b 2076 6572 7369 6f6e 3d31",
            RESPONSE_3,
            215,
        ),
    ];
    check_sequence(&plain, 256);
    let huffman = [
        (
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 \
             63c7 8f0b 97c8 e9ae 82ae 43d3",
            RESPONSE_1,
            222,
        ),
        ("4883 640e ffc1 c0bf", RESPONSE_2, 222),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 \
             b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            RESPONSE_3,
            215,
        ),
    ];
    check_sequence(&huffman, 256);
}

#[test]
fn refuses_what_is_wrong() {
    let limits = FieldLimits { field: 10, text: 20 };
    for (block, error) in [
        ("80", DecodeError::Index),
        ("be", DecodeError::Index),
        ("7e 01 61", DecodeError::Index),
        ("ff ff ff ff", DecodeError::Integer),
        ("42 ff ff ff ff", DecodeError::Integer),
        ("ff", DecodeError::Truncated),
        ("42 ff", DecodeError::Truncated),
        ("00 01 61 02 62", DecodeError::Truncated),
        ("00 01 61 84 ff ff ff ff", DecodeError::Huffman),
        ("00 01 61 81 00", DecodeError::Huffman),
        ("3f e2 1f", DecodeError::TableSize),
        ("82 20", DecodeError::TableSize),
        ("00 0b", DecodeError::FieldTooLarge),
        ("00 01 61 0b", DecodeError::FieldTooLarge),
        ("00 01 61 87 1ce7 39ce 739c e7", DecodeError::FieldTooLarge),
        ("82 82 82", DecodeError::ListTooLarge),
        ("00 0a 61616161616161616161 0a 61616161616161616161 00 00 01 61", DecodeError::ListTooLarge),
    ] {
        let block = hex(block);
        for cut in 0..block.len() {
            assert_eq!(decode(&mut Decoder::new(), &block, cut, limits), Err(error), "{block:x?} at {cut}");
        }
    }
    // At the limits.
    for block in ["00 0a 61616161616161616161 0a 61616161616161616161", "82 82", "3f e1 1f 82"] {
        assert!(decode(&mut Decoder::new(), &hex(block), 0, limits).is_ok(), "{block}");
    }
}

#[test]
fn the_encoder_announces_table_sizes() {
    let mut encoder = Encoder::new();
    for (sizes, expected) in [
        (&[][..], ""),
        (&[4096, 100_000], ""),
        (&[0], "20"),
        (&[4096], "3f e11f"),
        (&[10, 0, 100], "20 3f45"),
        (&[100], ""),
    ] {
        sizes.iter().for_each(|&size| encoder.set_max_size(size));
        let mut out = Buf::empty();
        encoder.begin(&mut out);
        assert_eq!(&out[..], hex(expected), "{sizes:?}");
    }
}

#[test]
fn the_encoder_indexes_as_told() {
    let mut encoder = Encoder::new();
    let mut encode = |name: &str, value: &str, indexing| {
        let mut out = Buf::empty();
        encoder.field(name.as_bytes(), value.as_bytes(), indexing, &mut out);
        out.to_vec()
    };
    assert_eq!(encode(":status", "200", Indexing::Without), hex("88"));
    assert_eq!(encode("X-Foo", "{{{{{", Indexing::Without), hex("00 84 f2b4 a73f 05 7b7b7b7b7b")); // Not worth Huffman.
    assert_eq!(encode("Server", "aaaaa", Indexing::Incremental), hex("76 84 18c6 31ff"));
    assert_eq!(encode("server", "aaaaa", Indexing::Incremental), hex("be"));
    assert_eq!(encode("server", "aaaaa", Indexing::Without), hex("0f27 84 18c6 31ff")); // It isn't looked for there.
    assert_eq!(encode("server", "aaaaa", Indexing::Never), hex("1f27 84 18c6 31ff"));
    assert_eq!(encode("server", "b", Indexing::Without), hex("0f27 01 62"));
}

#[test]
fn known_names_and_statuses() {
    for known in crate::h1::KNOWN_NAMES.iter().map(|name| KnownHeader::of(name.as_bytes())) {
        for indexing in [Indexing::Without, Indexing::Incremental, Indexing::Never] {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
            for value in ["1", "1", "2"] {
                let (mut out, mut text) = (Buf::empty(), Buf::empty());
                encoder.known(known, value.as_bytes(), indexing, &mut out);
                decoder.begin();
                let field = decoder.next(&mut &out[..], &mut text, LIMITS).expect("it is valid").expect("it is whole");
                assert_eq!((field.name.of(&text), field.value.of(&text)), (known.name().as_bytes(), value.as_bytes()));
            }
        }
    }
    for status in [100, 200, 204, 206, 304, 400, 404, 405, 500, 599] {
        let (mut out, mut text) = (Buf::empty(), Buf::empty());
        Encoder::new().status(status, &mut out);
        Decoder::new().next(&mut &out[..], &mut text, LIMITS).expect("it is valid").expect("it is whole");
        assert_eq!(text.to_vec(), format!(":status{status}").as_bytes());
    }
}

fn fields() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>, u8)>> {
    let name = prop_oneof![
        "[a-z-]{1,12}".prop_map(String::into_bytes),
        prop::sample::select(vec![":status", "server", "date", "content-type"]).prop_map(|n| n.as_bytes().to_vec()),
    ];
    let value = prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "[ -~]{0,60}".prop_map(String::into_bytes)];
    prop::collection::vec((name, value, 0..3u8), 0..20)
}

proptest! {
    #[test]
    fn round_trip(blocks in prop::collection::vec((fields(), prop::option::of(0..5000u32), any::<u16>()), 1..12)) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (fields, size, cut) in blocks {
            if let Some(size) = size {
                encoder.set_max_size(size);
            }
            let mut out = Buf::empty();
            encoder.begin(&mut out);
            for (name, value, indexing) in &fields {
                let indexing = [Indexing::Incremental, Indexing::Without, Indexing::Never][usize::from(*indexing)];
                encoder.field(name, value, indexing, &mut out);
            }
            encoder.check_invariants();
            let expected: Vec<_> = fields.into_iter().map(|(name, value, _)| (name, value)).collect();
            let cut = usize::from(cut) % (out.len() + 1);
            prop_assert_eq!(decode(&mut decoder, &out, cut, LIMITS).unwrap(), expected);
            prop_assert_eq!(decoder.table_size(), encoder.table_size());
        }
    }
}
