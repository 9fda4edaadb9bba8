//! The parts of a certificate, unjudged: what variables show, and what is compared byte for byte.

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode as _, Reader as _, SliceReader, Tagged as _};

/// The parts of a certificate, each as the DER that stands there.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The contents of the serial number.
    pub serial: &'a [u8],
    /// The issuer's name.
    pub issuer: &'a [u8],
    /// The contents of the validity: two times.
    pub validity: &'a [u8],
    /// The subject's name.
    pub subject: &'a [u8],
    /// The public key with its algorithm.
    pub public_key: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes a certificate apart; `None` if it isn't one.
    pub fn parse(der: &'a [u8]) -> Option<Parts<'a>> {
        let mut outer = inside(&mut SliceReader::new(der).ok()?)?;
        let mut tbs = inside(&mut outer)?;
        let mut first = AnyRef::decode(&mut tbs).ok()?;
        // The version comes first, unless it is 1.
        if first.tag().is_context_specific() {
            first = AnyRef::decode(&mut tbs).ok()?;
        }
        tbs.tlv_bytes().ok()?;
        Some(Parts {
            serial: first.value(),
            issuer: tbs.tlv_bytes().ok()?,
            validity: AnyRef::decode(&mut tbs).ok()?.value(),
            subject: tbs.tlv_bytes().ok()?,
            public_key: tbs.tlv_bytes().ok()?,
        })
    }
}

fn inside<'a>(reader: &mut SliceReader<'a>) -> Option<SliceReader<'a>> {
    SliceReader::new(AnyRef::decode(reader).ok()?.value()).ok()
}
