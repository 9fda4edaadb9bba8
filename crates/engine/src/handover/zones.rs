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

use crate::channel::{Fields, LARGE};
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

    /// Takes a label off the front of these fields. `None`: there is none, whole.
    fn decode(fields: &mut Fields<'_>) -> Option<Label> {
        let (size, layout, format) = (fields.long()?, fields.number()?, fields.number()?);
        let mut text = || String::from_utf8(fields.bytes()?.to_vec()).ok();
        Some(Label { size, layout, format, name: text()?, owner: text()?, meaning: text()? })
    }
}

/// A channel with these zones in it, for the other program to [`receive`]. What it has no room for, which is logged,
/// begins anew there.
pub(crate) fn send(zones: &Zones) -> io::Result<OwnedFd> {
    let (writer, reader) = os::channel::pair()?;
    let pass = |zone: &Rc<SharedZone>| Some((zone.label().encode(), zone.zone().file()?));
    let zones: Vec<_> = zones.iter().filter_map(pass).collect();
    let mut rest = &zones[..];
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(fitting(rest.iter().map(|(label, _)| label.len())));
        let labels: Vec<u8> = batch.iter().flat_map(|(label, _)| label).copied().collect();
        let files: Vec<_> = batch.iter().map(|(_, file)| file.as_fd()).collect();
        if let Err(error) = os::channel::send(writer.as_raw_fd(), &labels, &files) {
            let message = "zones can't be passed to the new binary process, they begin anew";
            crate::log!(log::current(), Warn, "{message}{}", Errno(&error));
            break;
        }
        rest = others;
    }
    Ok(reader)
}

/// How many of these labels, by their lengths, go into one message. One that is too long for any has a message of its own,
/// which its receiver can't read.
fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut room = LARGE;
    let fits = |length: &usize| {
        let left = room.checked_sub(*length);
        room = left.unwrap_or(room);
        left.is_some()
    };
    lengths.take(MAX_FDS).take_while(fits).count().max(1)
}

/// The zones in a channel, and why some that may be in it could not be read.
pub(crate) fn receive(reader: &OwnedFd) -> (Vec<Passed>, Option<io::Error>) {
    let (mut zones, mut failed, mut scratch) = (Vec::new(), None, vec![0; LARGE]);
    loop {
        let received = match os::channel::recv(reader.as_raw_fd(), &mut scratch) {
            Ok(received) if received.len > 0 => received,
            Ok(_) => break,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        let mut fields = Fields(scratch.get(..received.len).unwrap_or_default());
        let labels: Vec<Label> = std::iter::from_fn(|| Label::decode(&mut fields)).collect();
        // A message that isn't understood whole isn't understood.
        if !received.cut && fields.0.is_empty() && labels.len() == received.fds.len() {
            zones.extend(labels.into_iter().zip(received.fds).map(|(label, file)| Passed { label, file }));
        } else {
            failed = Some(io::ErrorKind::InvalidData.into());
        }
    }
    (zones, failed)
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
        let mut rest = Fields(&bytes);
        let read: Vec<Label> = std::iter::from_fn(|| Label::decode(&mut rest)).collect();
        assert_eq!((&read[..], rest.0.len()), (&all[..], 0));
        let one = label("one").encode();
        for len in 0..one.len() {
            assert_eq!(Label::decode(&mut Fields(&one[..len])), None, "{len}");
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
        let (zones, failed) = receive(&reader);
        let names: Vec<String> = zones.into_iter().map(|passed| passed.label.name).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(failed.map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
    }

    #[test]
    fn labels_of_a_message() {
        for (lengths, expect) in [
            (vec![100; 40], MAX_FDS),
            (vec![100; 3], 3),
            (vec![LARGE, 1], 1),
            (vec![LARGE - 1, 1, 1], 2),
            (vec![1, LARGE, 1], 1),
            (vec![LARGE + 1, 1], 1),
        ] {
            assert_eq!(fitting(lengths.iter().copied()), expect, "{lengths:?}");
        }
    }
}
