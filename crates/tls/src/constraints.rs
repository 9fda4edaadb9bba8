//! Constraints on names (RFC 5280 §4.2.1.10): which names certificates below an authority may bear. As OpenSSL has them.

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};

use crate::verify::Reason;
use crate::x509::{inside, inside_set};

/// A name, or the root of a subtree of names: its kind (the tag of a `GeneralName`) and its value.
type Name<'a> = (u8, &'a [u8]);

const MAIL: u8 = 1;
const DNS: u8 = 2;
const DIRECTORY: u8 = 4;
const ADDRESS: u8 = 7;

/// How often names may be compared for one certificate: nobody has so many.
const MAX_COMPARISONS: usize = 1 << 20;

/// The names of a certificate that constraints look at.
pub(crate) fn names<'a>(subject: &'a [u8], alternatives: Option<&'a [u8]>) -> Option<Vec<Name<'a>>> {
    let mut names = Vec::new();
    if !AnyRef::from_der(subject).ok()?.value().is_empty() {
        names.push((DIRECTORY, subject));
        names.extend(attributes(subject)?.into_iter().filter(|(id, _)| *id == EMAIL).map(|(_, value)| (MAIL, value)));
    }
    if let Some(alternatives) = alternatives {
        let mut reader = inside(&mut SliceReader::new(alternatives).ok()?)?;
        while !reader.is_finished() {
            names.push(general_name(&mut reader)?);
        }
    }
    Some(names)
}

/// The host names among the common names of a subject: they count where no others are given.
pub(crate) fn add_hosts<'a>(names: &mut Vec<Name<'a>>, common: &'a [Vec<u8>]) {
    if !names.iter().any(|(kind, _)| *kind == DNS) {
        names.extend(common.iter().filter(|name| looks_like_host(name)).map(|name| (DNS, &name[..])));
    }
}

/// Judges names by the value of an extension with constraints.
pub(crate) fn check(names: &[Name<'_>], constraints: &[u8]) -> Result<(), Reason> {
    let (permitted, excluded) = subtrees(constraints).ok_or(Reason::CONSTRAINT_SYNTAX)??;
    if names.len().saturating_mul(permitted.len() + excluded.len()) > MAX_COMPARISONS {
        return Err(Reason::UNSPECIFIED);
    }
    for name in names {
        let of_kind = || permitted.iter().filter(|subtree| subtree.0 == name.0);
        if of_kind().next().is_some() && !any_holds(of_kind(), name)? {
            return Err(Reason::NOT_PERMITTED);
        }
        if any_holds(excluded.iter().filter(|subtree| subtree.0 == name.0), name)? {
            return Err(Reason::EXCLUDED);
        }
    }
    Ok(())
}

fn any_holds<'a, 'b: 'a>(subtrees: impl Iterator<Item = &'a Name<'b>>, name: &Name<'_>) -> Result<bool, Reason> {
    for subtree in subtrees {
        if holds(subtree, name.1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a name is in a subtree of its kind.
fn holds(subtree: &Name<'_>, name: &[u8]) -> Result<bool, Reason> {
    let root = subtree.1;
    match subtree.0 {
        DNS => Ok(is_below(name, root)),
        MAIL => mail_holds(root, name).ok_or(Reason::NAME_SYNTAX),
        ADDRESS => Ok(root.len() == 2 * name.len() && {
            let (net, mask) = root.split_at(name.len());
            name.iter().zip(net).zip(mask).all(|((byte, net), mask)| byte & mask == net & mask)
        }),
        DIRECTORY => {
            let (root, name) = (relative_names(root), relative_names(name));
            let (root, name) = root.zip(name).ok_or(Reason::NAME_SYNTAX)?;
            Ok(name.starts_with(&root))
        }
        _ => Err(Reason::CONSTRAINT_KIND),
    }
}

/// A host is the root itself, or ends with it after a dot.
fn is_below(host: &[u8], root: &[u8]) -> bool {
    let Some(at) = host.len().checked_sub(root.len()) else { return false };
    let (front, end) = host.split_at(at);
    let whole = front.is_empty() || root.is_empty() || root.starts_with(b".") || front.ends_with(b".");
    end.eq_ignore_ascii_case(root) && whole
}

fn mail_holds(root: &[u8], address: &[u8]) -> Option<bool> {
    let at = memchr_last(address)?;
    let (local, host) = (&address[..at], &address[at + 1..]);
    Some(match memchr_last(root) {
        Some(at) => (at == 0 || root[..at] == *local) && root[at + 1..].eq_ignore_ascii_case(host),
        None if root.starts_with(b".") => is_below(host, root),
        None => root.eq_ignore_ascii_case(host),
    })
}

fn memchr_last(address: &[u8]) -> Option<usize> {
    address.iter().rposition(|byte| *byte == b'@')
}

/// Dots within, and nothing else than what host names are made of.
fn looks_like_host(name: &[u8]) -> bool {
    let label = |label: &[u8]| {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.iter().all(fits) && !label.starts_with(b"-") && !label.ends_with(b"-")
    };
    name.contains(&b'.') && name.split(|byte| *byte == b'.').all(label)
}

type Subtrees<'a> = (Vec<Name<'a>>, Vec<Name<'a>>);

/// What is permitted, and what is excluded. `None`: it can't be read.
fn subtrees(constraints: &[u8]) -> Option<Result<Subtrees<'_>, Reason>> {
    let mut reader = inside(&mut SliceReader::new(constraints).ok()?)?;
    let (mut permitted, mut excluded) = (Vec::new(), Vec::new());
    while !reader.is_finished() {
        let part = AnyRef::decode(&mut reader).ok()?;
        let list = match part.tag().number().value() {
            0 => &mut permitted,
            1 => &mut excluded,
            _ => return None,
        };
        let mut part = SliceReader::new(part.value()).ok()?;
        while !part.is_finished() {
            let mut subtree = inside(&mut part)?;
            list.push(general_name(&mut subtree)?);
            // Least and most depth have never been used.
            if !subtree.is_finished() {
                return Some(Err(Reason::CONSTRAINT_DEPTH));
            }
        }
    }
    Some(Ok((permitted, excluded)))
}

fn general_name<'a>(reader: &mut SliceReader<'a>) -> Option<Name<'a>> {
    let any = AnyRef::decode(reader).ok()?;
    Some((u8::try_from(any.tag().number().value()).ok()?, any.value()))
}

/// The attributes of a name: kind, and the string without its tag.
fn attributes(name: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    let mut reader = inside(&mut SliceReader::new(name).ok()?)?;
    while !reader.is_finished() {
        let mut set = inside_set(&mut reader)?;
        while !set.is_finished() {
            let mut one = inside(&mut set)?;
            found.push((AnyRef::decode(&mut one).ok()?.value(), AnyRef::decode(&mut one).ok()?.value()));
        }
    }
    Some(found)
}

/// The relative names of which a name consists, in a form in which equal ones are the same: letters are small, and there is
/// one space where there were several.
fn relative_names(name: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut reader = inside(&mut SliceReader::new(name).ok()?)?;
    while !reader.is_finished() {
        let mut relative = Vec::new();
        let mut set = inside_set(&mut reader)?;
        while !set.is_finished() {
            let mut one = inside(&mut set)?;
            let (id, value) = (AnyRef::decode(&mut one).ok()?, AnyRef::decode(&mut one).ok()?);
            relative.extend_from_slice(&(id.value().len() as u32).to_be_bytes());
            relative.extend_from_slice(id.value());
            let text = canonical(value)?;
            relative.extend_from_slice(&(text.len() as u32).to_be_bytes());
            relative.extend_from_slice(&text);
        }
        found.push(relative);
    }
    Some(found)
}

fn canonical(value: AnyRef<'_>) -> Option<Vec<u8>> {
    let is_text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString);
    if !is_text {
        return Some(value.value().to_vec());
    }
    let words: Vec<&[u8]> =
        value.value().split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()).collect();
    Some(words.join(&b' ').to_ascii_lowercase())
}

/// 1.2.840.113549.1.9.1
const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];
