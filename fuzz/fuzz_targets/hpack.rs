//! Header blocks: the same fields however a block is cut, the same as another implementation reads, and what is encoded
//! again comes back through both.
#![cfg_attr(fuzzing, no_main)]

use buf::Buf;
use loona_hpack::decoder::{DecoderError, StringDecodingError};
use loona_hpack::huffman::HuffmanDecoderError;
use wire::hpack::{DecodeError, Decoder, Encoder, FieldLimits, Indexing};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What the other implementation says of a whole byte of padding, which we bear as nginx does.
const PADDING: DecoderError =
    DecoderError::StringDecodingError(StringDecodingError::HuffmanDecoderError(HuffmanDecoderError::PaddingTooLarge));

const LIMITS: FieldLimits = FieldLimits { field: 4096, text: 16384 };

fn decode(decoder: &mut Decoder, block: &[u8], cut: usize) -> Result<Fields, DecodeError> {
    let (mut text, mut fields, mut carry) = (Buf::empty(), Vec::new(), Vec::new());
    decoder.begin();
    for part in [&block[..cut], &block[cut..]] {
        carry.extend_from_slice(part);
        let mut rest = &carry[..];
        while let Some(field) = decoder.next(&mut rest, &mut text, LIMITS)? {
            fields.push((field.name.of(&text).to_vec(), field.value.of(&text).to_vec()));
        }
        carry = rest.to_vec();
    }
    assert!(decoder.table_size() <= 4096 && text.len() <= LIMITS.text);
    if carry.is_empty() { Ok(fields) } else { Err(DecodeError::Truncated) }
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let (mut whole, mut parts) = (Decoder::new(), Decoder::new());
    let (mut oracle, mut encoder, mut back) = (Some(loona_hpack::Decoder::new()), Encoder::new(), Decoder::new());
    let mut oracle_back = loona_hpack::Decoder::new();
    // Blocks are divided by a byte that is rare in them.
    for block in data.split(|&byte| byte == 0xfe) {
        let fields = decode(&mut whole, block, 0);
        assert_eq!(fields, decode(&mut parts, block, usize::from(cut).min(block.len())));
        let Ok(fields) = fields else { return };
        assert_eq!(whole.table_size(), parts.table_size());
        // The other doesn't take a block of table sizes alone.
        if fields.is_empty() {
            return;
        }
        // What we take, the other takes, but for padding; after that its table isn't ours any more.
        match oracle.as_mut().map(|oracle| oracle.decode(block)) {
            None => {}
            Some(Err(PADDING)) => oracle = None,
            Some(decoded) => assert_eq!(decoded.expect("valid"), fields),
        }
        let mut out = Buf::empty();
        encoder.set_max_size(u32::from(cut) * 20);
        encoder.begin(&mut out);
        for (i, (name, value)) in fields.iter().enumerate() {
            let indexing = [Indexing::Incremental, Indexing::Without, Indexing::Never][(i + usize::from(cut)) % 3];
            encoder.field(name, value, indexing, &mut out);
        }
        let lower: Fields = fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        assert_eq!(decode(&mut back, &out, 0).as_ref(), Ok(&lower));
        assert_eq!(back.table_size(), encoder.table_size());
        assert_eq!(oracle_back.decode(&out).expect("valid"), lower);
    }
});
