//! Header blocks, however they are cut: what both sides of a connection do with their fragments.

use super::error::{ConnectionError, Reason};
use super::head::{Head, HeadKind};
use crate::hpack::{Decoder, FieldLimits};

/// The beginning of a field of which not everything has come.
#[derive(Debug, Default)]
pub(super) struct Carry(Vec<u8>);

/// What becomes of a block's fields.
pub(super) struct Rules {
    /// What the block is the head of; `None`: only the tables matter.
    pub(super) kind: Option<HeadKind>,
    pub(super) limits: FieldLimits,
    /// The most fields.
    pub(super) fields: usize,
}

impl Carry {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Decodes the fields that are complete with these bytes into `head`, and keeps the beginning of the one that isn't.
    pub(super) fn decode(
        &mut self,
        decoder: &mut Decoder,
        head: &mut Head,
        bytes: &[u8],
        rules: &Rules,
    ) -> Result<(), ConnectionError> {
        if self.0.is_empty() {
            let mut rest = bytes;
            fields(decoder, head, &mut rest, rules)?;
            self.0 = rest.to_vec();
            return Ok(());
        }
        self.0.extend_from_slice(bytes);
        let mut rest = &self.0[..];
        fields(decoder, head, &mut rest, rules)?;
        let used = self.0.len() - rest.len();
        self.0.drain(..used);
        Ok(())
    }
}

fn fields(decoder: &mut Decoder, head: &mut Head, rest: &mut &[u8], rules: &Rules) -> Result<(), ConnectionError> {
    while let Some(field) = decoder.next(rest, &mut head.text, rules.limits)? {
        if field.name.is_empty() {
            return Err(Reason::NoName.into());
        }
        if let Some(kind) = rules.kind {
            head.push(field, kind, rules.fields);
        }
    }
    Ok(())
}
