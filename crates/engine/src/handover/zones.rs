//! Zones on their way to the program that takes this one's place.
//!
//! The old master gives them to the new one together with the link ([`crate::handover::link`]): over a channel of their
//! own, which has been filled and closed when the new master gets it, so that nobody waits for anybody. A message has the
//! files of up to 16 zones, and of each the [`Label`], which says what it is. The new master takes those that its
//! configuration declares in the same way, and closes the others.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use os::channel::MAX_FDS;

use crate::channel::LARGE;
use crate::cycle::zones::{SharedZone, Zones};
use crate::log::{self, Errno};

/// What a zone is, for another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Its name.
    pub(crate) name: String,
    /// In bytes.
    pub(crate) size: u64,
    /// The module that owns it.
    pub(crate) owner: String,
    /// The version of the owner's entries.
    pub(crate) layout: u32,
    /// The format of the table that has the entries.
    pub(crate) format: u32,
    /// On what in the configuration it depends what entries mean.
    pub(crate) meaning: String,
}

/// A zone that another program has passed on.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) label: Label,
    pub(crate) file: OwnedFd,
}

impl Label {
    /// Why a zone that is like this isn't one of the other label.
    pub(crate) fn difference(&self, other: &Label) -> Option<&'static str> {
        if self.owner != other.owner {
            Some("it has another use")
        } else if self.size != other.size {
            Some("it has another size")
        } else if (self.layout, self.format) != (other.layout, other.format) {
            Some("it has another layout")
        } else if self.meaning != other.meaning {
            Some("its entries were made by other settings")
        } else {
            None
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = [&self.size.to_le_bytes()[..], &self.layout.to_le_bytes(), &self.format.to_le_bytes()].concat();
        for text in [&self.name, &self.owner, &self.meaning] {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// Takes a label off the front of these bytes.
    fn decode(bytes: &mut &[u8]) -> Option<Label> {
        let size = u64::from_le_bytes(*take(bytes)?);
        let (layout, format) = (number(bytes)?, number(bytes)?);
        Some(Label { size, layout, format, name: text(bytes)?, owner: text(bytes)?, meaning: text(bytes)? })
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(field)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(|field| u32::from_le_bytes(*field))
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = number(bytes)? as usize;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// A channel with these zones in it, for the other program to [`receive`]. What it has no room for, which is logged,
/// begins anew there.
pub(crate) fn send(zones: &Zones) -> io::Result<OwnedFd> {
    let (writer, reader) = os::channel::pair()?;
    let pass = |zone: &Rc<SharedZone>| Some((zone.label().encode(), zone.zone().file()?));
    let zones: Vec<_> = zones.iter().filter_map(pass).collect();
    let sent = zones.chunks(MAX_FDS).try_for_each(|batch| {
        let labels: Vec<u8> = batch.iter().flat_map(|(label, _)| label).copied().collect();
        let files: Vec<_> = batch.iter().map(|(_, file)| file.as_fd()).collect();
        os::channel::send(writer.as_raw_fd(), &labels, &files)
    });
    if let Err(error) = sent {
        crate::log!(log::current(), Warn, "zones can't be passed to the new binary process{}", Errno(&error));
    }
    Ok(reader)
}

/// The zones in a channel.
pub(crate) fn receive(reader: &OwnedFd) -> Vec<Passed> {
    let (mut zones, mut scratch) = (Vec::new(), vec![0; LARGE]);
    while let Ok(received) = os::channel::recv(reader.as_raw_fd(), &mut scratch)
        && received.len > 0
    {
        let mut bytes = scratch.get(..received.len).unwrap_or_default();
        let labels: Vec<Label> = std::iter::from_fn(|| Label::decode(&mut bytes)).collect();
        // A message that isn't understood whole isn't understood.
        if !received.cut && bytes.is_empty() && labels.len() == received.fds.len() {
            zones.extend(labels.into_iter().zip(received.fds).map(|(label, file)| Passed { label, file }));
        }
    }
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str) -> Label {
        let (owner, meaning) = ("m".to_owned(), "$key".to_owned());
        Label { name: name.to_owned(), size: 65536, owner, layout: 2, format: 3, meaning }
    }

    #[test]
    fn labels() {
        let all = [label("one"), label(""), Label { meaning: "x".repeat(70_000), ..label("two") }];
        let bytes: Vec<u8> = all.iter().flat_map(Label::encode).collect();
        let mut rest = &bytes[..];
        let read: Vec<Label> = std::iter::from_fn(|| Label::decode(&mut rest)).collect();
        assert_eq!((&read[..], rest.len()), (&all[..], 0));
        let one = label("one").encode();
        for len in 0..one.len() {
            assert_eq!(Label::decode(&mut &one[..len]), None, "{len}");
        }
    }

    #[test]
    fn differences() {
        for (other, why) in [
            (label("a"), None),
            (Label { owner: "n".to_owned(), ..label("a") }, Some("it has another use")),
            (Label { size: 1, ..label("a") }, Some("it has another size")),
            (Label { layout: 1, ..label("a") }, Some("it has another layout")),
            (Label { format: 1, ..label("a") }, Some("it has another layout")),
            (Label { meaning: String::new(), ..label("a") }, Some("its entries were made by other settings")),
        ] {
            assert_eq!(label("a").difference(&other), why);
        }
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let (writer, reader) = os::channel::pair().expect("a pair");
        let file = os::memory::sealed_file(c"test", 4096).expect("a file");
        let whole = [label("one").encode(), label("two").encode()].concat();
        for (bytes, files) in [(&whole[..], 1), (b"x", 1), (&whole[..], 2), (&whole[1..], 2)] {
            os::channel::send(writer.as_raw_fd(), bytes, &vec![file.as_fd(); files]).expect("room");
        }
        drop(writer);
        let names: Vec<String> = receive(&reader).into_iter().map(|passed| passed.label.name).collect();
        assert_eq!(names, ["one", "two"]);
    }
}
