//! What variables show of a certificate, as OpenSSL writes it.

use std::fmt::Write as _;

use base64::Engine as _;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};

use crate::x509::{Parts, inside, inside_set};

/// A certificate in PEM, with a newline at its end.
pub fn pem(der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The SHA-1 of a certificate, in hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    buf::hex::text(&crate::sha1(der))
}

/// The serial number, in hexadecimal.
pub fn serial(certificate: &Parts<'_>) -> String {
    let digits = certificate.serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(certificate.serial);
    buf::hex::upper_text(digits)
}

/// A time as OpenSSL prints it: `Jan  2 15:04:05 2026 GMT`.
pub fn time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = civil(days);
    let month = MONTHS[month];
    format!("{month} {day:2} {:02}:{:02}:{:02} {year} GMT", rest / 3600, rest / 60 % 60, rest % 60)
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month from 0 and day of a number of days since 1970; years begin in March while it is computed.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 2 } else { month - 10 };
    (era * 400 + year + u64::from(month < 2), month as usize, date)
}

/// Part of a name: which attribute, and its value.
struct Attribute<'a> {
    id: ObjectIdentifier,
    value: AnyRef<'a>,
    /// The value with tag and length.
    der: &'a [u8],
}

/// A name's parts, each with one or more attributes, in the order of the certificate.
fn parts(name: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let mut outer = inside(&mut SliceReader::new(name).ok()?)?;
    let mut parts = Vec::new();
    while !outer.is_finished() {
        let mut set = inside_set(&mut outer)?;
        let mut attributes = Vec::new();
        while !set.is_finished() {
            let mut pair = inside(&mut set)?;
            let id = ObjectIdentifier::decode(&mut pair).ok()?;
            let der = pair.tlv_bytes().ok()?;
            attributes.push(Attribute { id, value: AnyRef::from_der(der).ok()?, der });
        }
        parts.push(attributes);
    }
    Some(parts)
}

/// A name as RFC 2253 has it: `CN=subject,O=x`, the last part first.
pub fn name(der: &[u8]) -> String {
    let mut text = String::new();
    for (n, part) in parts(der).unwrap_or_default().iter().rev().enumerate() {
        text.push_str(if n > 0 { "," } else { "" });
        for (n, attribute) in part.iter().enumerate() {
            text.push_str(if n > 0 { "+" } else { "" });
            match (short(attribute.id), string(&attribute.value)) {
                (Some(short), Some(value)) => {
                    text.push_str(short);
                    text.push('=');
                    escape(&value, &mut text);
                }
                (short, _) => {
                    let id = short.map_or_else(|| attribute.id.to_string(), str::to_owned);
                    let _ = write!(text, "{id}=#{}", buf::hex::upper_text(attribute.der));
                }
            }
        }
    }
    text
}

/// The common names in a name.
pub fn common_names(der: &[u8]) -> Vec<Vec<u8>> {
    let all = parts(der).unwrap_or_default();
    all.iter().flatten().filter(|one| one.id == COMMON_NAME).filter_map(|one| string(&one.value)).collect()
}

/// A name in OpenSSL's older form: `/O=x/CN=subject`.
pub fn legacy_name(der: &[u8]) -> String {
    let mut text = String::new();
    for attribute in parts(der).unwrap_or_default().iter().flatten() {
        let id = short(attribute.id).map_or_else(|| attribute.id.to_string(), str::to_owned);
        let _ = write!(text, "/{id}=");
        for byte in attribute.value.value() {
            let _ = match byte {
                b' '..=b'~' => write!(text, "{}", char::from(*byte)),
                _ => write!(text, "\\x{byte:02X}"),
            };
        }
    }
    text
}

/// A string of any of the usual kinds, as UTF-8.
fn string(value: &AnyRef<'_>) -> Option<Vec<u8>> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            Some(bytes.to_vec())
        }
        // In practice these are Latin-1.
        Tag::TeletexString => Some(bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes()),
        Tag::BmpString => {
            let (pairs, rest) = bytes.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            let text = String::from_utf16(&units).ok()?;
            rest.is_empty().then(|| text.into_bytes())
        }
        _ => None,
    }
}

/// RFC 2253 §2.4, and everything that isn't printable ASCII as `\XX`.
fn escape(value: &[u8], text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (n, byte) in value.iter().enumerate() {
        let special = match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => true,
            b'#' => n == 0,
            b' ' => n == 0 || n == last,
            _ => false,
        };
        let _ = match byte {
            _ if special => write!(text, "\\{}", char::from(*byte)),
            b' '..=b'~' => write!(text, "{}", char::from(*byte)),
            _ => write!(text, "\\{byte:02X}"),
        };
    }
}

fn short(id: ObjectIdentifier) -> Option<&'static str> {
    SHORT.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

const fn id(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const COMMON_NAME: ObjectIdentifier = id("2.5.4.3");

/// OpenSSL's short names of attributes.
const SHORT: &[(ObjectIdentifier, &str)] = &[
    (id("2.5.4.3"), "CN"),
    (id("2.5.4.4"), "SN"),
    (id("2.5.4.5"), "serialNumber"),
    (id("2.5.4.6"), "C"),
    (id("2.5.4.7"), "L"),
    (id("2.5.4.8"), "ST"),
    (id("2.5.4.9"), "street"),
    (id("2.5.4.10"), "O"),
    (id("2.5.4.11"), "OU"),
    (id("2.5.4.12"), "title"),
    (id("2.5.4.13"), "description"),
    (id("2.5.4.15"), "businessCategory"),
    (id("2.5.4.17"), "postalCode"),
    (id("2.5.4.41"), "name"),
    (id("2.5.4.42"), "GN"),
    (id("2.5.4.43"), "initials"),
    (id("2.5.4.44"), "generationQualifier"),
    (id("2.5.4.46"), "dnQualifier"),
    (id("2.5.4.65"), "pseudonym"),
    (id("2.5.4.97"), "organizationIdentifier"),
    (id("1.2.840.113549.1.9.1"), "emailAddress"),
    (id("1.2.840.113549.1.9.2"), "unstructuredName"),
    (id("0.9.2342.19200300.100.1.1"), "UID"),
    (id("0.9.2342.19200300.100.1.25"), "DC"),
    (id("1.3.6.1.4.1.311.60.2.1.1"), "jurisdictionL"),
    (id("1.3.6.1.4.1.311.60.2.1.2"), "jurisdictionST"),
    (id("1.3.6.1.4.1.311.60.2.1.3"), "jurisdictionC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |seconds, expect: &str| assert_eq!(time(seconds), expect);
        check(0, "Jan  1 00:00:00 1970 GMT");
        check(951_782_400, "Feb 29 00:00:00 2000 GMT");
        check(1_767_366_245, "Jan  2 15:04:05 2026 GMT");
        check(4_102_444_799, "Dec 31 23:59:59 2099 GMT");
    }

    /// A name of these attributes, each in a part of its own.
    fn made(attributes: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
        let tlv = |tag: u8, value: &[u8]| [&[tag, value.len() as u8][..], value].concat();
        let one =
            |(id, tag, value): &(&[u8], u8, &[u8])| tlv(0x31, &tlv(0x30, &[tlv(6, id), tlv(*tag, value)].concat()));
        tlv(0x30, &attributes.iter().flat_map(one).collect::<Vec<_>>())
    }

    #[test]
    fn names() {
        let (cn, o): (&[u8], &[u8]) = (&[0x55, 4, 3], &[0x55, 4, 10]);
        let der = made(&[(o, 0x13, b"Acme, Inc"), (cn, 0x0c, "#a\u{e9}b ".as_bytes())]);
        assert_eq!(name(&der), "CN=\\#a\\C3\\A9b\\ ,O=Acme\\, Inc");
        assert_eq!(legacy_name(&der), "/O=Acme, Inc/CN=#a\\xC3\\xA9b ");
        assert_eq!(name(&made(&[(&[0x2a, 3], 0x0c, b"x")])), "1.2.3=#0C0178");
        assert_eq!((name(b"junk"), name(&[])), (String::new(), String::new()));
    }

    #[test]
    fn texts_of_a_certificate() {
        assert_eq!(pem(&[1, 2, 3]), "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n");
        assert_eq!(pem(&[0; 48]).lines().count(), 3);
        assert_eq!(fingerprint(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
