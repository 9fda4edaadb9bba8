//! DNS messages (RFC 1035): questions for a name's addresses or services (RFC 2782), or an address's name, and what
//! answers say.
//!
//! An answer counts only if it repeats the question. Records of other names than the one that was asked for, and those it
//! is an alias of, are skipped, so that an answer can't speak of names that nobody asked for.

use std::net::IpAddr;

/// A name as messages have it: labels with their lengths before them, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of IPv4.
    A = 1,
    /// Addresses of IPv6.
    Aaaa = 28,
    /// Where a service is.
    Srv = 33,
    /// The name of an address.
    Ptr = 12,
}

/// Where a service is (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Those of the lowest number are to be used first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host.
    pub target: Name,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0, or why there is no answer (§4.1.1).
    pub code: u8,
    /// Whether there is more than fits: ask over TCP.
    pub truncated: bool,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The services.
    pub services: Vec<Service>,
    /// The names of an address.
    pub names: Vec<Name>,
    /// The name to ask for instead, if the name is an alias of one of which the answer says nothing else.
    pub alias: Option<Name>,
    /// For how many seconds all this holds.
    pub ttl: u32,
}

impl Default for Answer {
    /// One that says nothing.
    fn default() -> Answer {
        Answer {
            code: 0,
            truncated: false,
            addresses: Vec::new(),
            services: Vec::new(),
            names: Vec::new(),
            alias: None,
            ttl: u32::MAX,
        }
    }
}

/// The code of an answer to a question that the server didn't understand.
pub const FORMAT_ERROR: u8 = 1;
/// The code of a server that can't answer.
pub const SERVER_FAILURE: u8 = 2;
/// The code for a name that doesn't exist.
pub const NO_SUCH_NAME: u8 = 3;

const HEAD: usize = 12;
const MOST_LABEL: usize = 63;
/// Four labels of the longest kind, and the empty one at the end. It should be 255 (§2.3.4), but nginx takes these too.
const MOST_NAME: usize = 257;
const CLASS_INTERNET: u16 = 1;
const TYPE_ALIAS: u16 = 5;
/// How often a name may be an alias within one answer.
const MOST_ALIASES: usize = 16;
/// How many records of an answer are looked at.
const MOST_RECORDS: usize = 512;

const IS_ANSWER: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;

impl Name {
    /// The name written so, with or without a dot at its end; `None` if names can't be like that.
    pub fn parse(text: &[u8]) -> Option<Name> {
        let mut name = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix(b".").unwrap_or(text).split(|byte| *byte == b'.') {
            if label.is_empty() || label.len() > MOST_LABEL {
                return None;
            }
            name.push(label.len() as u8);
            name.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        name.push(0);
        (name.len() <= MOST_NAME).then(|| Name(name.into()))
    }

    /// The name under which the names of an address are (§3.5, RFC 3596 §2.5).
    pub fn of_address(address: IpAddr) -> Name {
        let mut name = Vec::with_capacity(74);
        let mut label = |label: &[u8]| {
            name.push(label.len() as u8);
            name.extend_from_slice(label);
        };
        match address {
            IpAddr::V4(address) => {
                address.octets().iter().rev().for_each(|octet| label(octet.to_string().as_bytes()));
                label(b"in-addr");
            }
            IpAddr::V6(address) => {
                let digits = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
                digits.for_each(|digit| label(format!("{digit:x}").as_bytes()));
                label(b"ip6");
            }
        }
        label(b"arpa");
        name.push(0);
        Name(name.into())
    }

    /// As it is written, without a dot at its end; `None` if hosts aren't called like that.
    pub fn host(&self) -> Option<String> {
        let mut text = String::new();
        let mut rest = &self.0[..];
        while let Some((&length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
            let (label, after) = after.split_at_checked(length.into())?;
            if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                return None;
            }
            text.push_str(if text.is_empty() { "" } else { "." });
            text.push_str(str::from_utf8(label).ok()?);
            rest = after;
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// Reads a name of a message; and where it ends there.
    fn read(message: &[u8], mut at: usize) -> Option<(Name, usize)> {
        let mut name = Vec::new();
        let mut end = None;
        // Each pointer has to lead further back, so this comes to an end.
        let mut limit = at;
        loop {
            match *message.get(at)? {
                0 => {
                    name.push(0);
                    return Some((Name(name.into()), end.unwrap_or(at + 1)));
                }
                len @ 1..=63 => {
                    let label = message.get(at + 1..at + 1 + usize::from(len))?;
                    name.push(len);
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += 1 + label.len();
                }
                high @ 0xc0.. => {
                    end.get_or_insert(at + 2);
                    at = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                    if at >= limit {
                        return None;
                    }
                    limit = at;
                }
                _ => return None,
            }
            if name.len() >= MOST_NAME {
                return None;
            }
        }
    }
}

/// The question for a name's addresses, as a datagram.
pub fn question(id: u16, name: &Name, kind: Kind) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + name.0.len() + 4);
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&name.0);
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    out.extend_from_slice(&CLASS_INTERNET.to_be_bytes());
    out
}

/// Reads the answer to a question; `None` if the message is none, or is the answer to another one.
pub fn answer(message: &[u8], id: u16, name: &Name, kind: Kind) -> Option<Answer> {
    let flags = word(message, 2)?;
    if word(message, 0)? != id || flags & IS_ANSWER == 0 || flags & OPCODE != 0 {
        return None;
    }
    let code = (flags & 15) as u8;
    let mut answer = Answer { code, truncated: code == 0 && flags & TRUNCATED != 0, ..Answer::default() };
    let questions = word(message, 4)?;
    if questions == 0 && code == FORMAT_ERROR {
        // Who didn't understand the question needn't repeat it.
        return Some(answer);
    }
    let (asked, mut at) = Name::read(message, HEAD)?;
    let is_it = asked == *name && word(message, at)? == kind as u16 && word(message, at + 2)? == CLASS_INTERNET;
    if questions != 1 || !is_it {
        return None;
    }
    if code != 0 || answer.truncated {
        return Some(answer);
    }
    at += 4;
    let mut records = Vec::new();
    for _ in 0..usize::from(word(message, 6)?).min(MOST_RECORDS) {
        let record = Record::read(message, at)?;
        at = record.end;
        records.push(record);
    }
    answer.follow(message, name, kind, &records)?;
    Some(answer)
}

impl Answer {
    /// Goes from alias to alias to the addresses or services.
    fn follow(&mut self, message: &[u8], name: &Name, kind: Kind, records: &[Record]) -> Option<()> {
        let mut name = name.clone();
        for _ in 0..MOST_ALIASES {
            for record in records.iter().filter(|record| record.is(&name, kind as u16)) {
                let data = message.get(record.data..record.end)?;
                match kind {
                    Kind::A => self.addresses.push(IpAddr::V4(<[u8; 4]>::try_from(data).ok()?.into())),
                    Kind::Aaaa => self.addresses.push(IpAddr::V6(<[u8; 16]>::try_from(data).ok()?.into())),
                    Kind::Srv => self.services.push(service(message, record)?),
                    Kind::Ptr => self.names.push(name_in(message, record)?),
                }
                self.ttl = self.ttl.min(record.ttl);
            }
            if !self.addresses.is_empty() || !self.services.is_empty() || !self.names.is_empty() {
                self.alias = None;
                return Some(());
            }
            let Some(alias) = records.iter().find(|record| record.is(&name, TYPE_ALIAS)) else {
                // As in nginx: who answers a question for a name with something else hasn't said that there is none.
                return (kind != Kind::Ptr || records.is_empty() || self.alias.is_some()).then_some(());
            };
            let target = name_in(message, alias)?;
            self.ttl = self.ttl.min(alias.ttl);
            self.alias = Some(target.clone());
            name = target;
        }
        None
    }
}

struct Record {
    name: Name,
    kind: u16,
    ttl: u32,
    /// Where its data begin and end.
    data: usize,
    end: usize,
}

impl Record {
    fn read(message: &[u8], at: usize) -> Option<Record> {
        let (name, at) = Name::read(message, at)?;
        let (kind, class) = (word(message, at)?, word(message, at + 2)?);
        let ttl = u32::from(word(message, at + 4)?) << 16 | u32::from(word(message, at + 6)?);
        let data = at + 10;
        let end = data + usize::from(word(message, at + 8)?);
        if end > message.len() {
            return None;
        }
        // Of another class it is about something else, and a time with the highest bit set is none (RFC 2181 §8).
        let kind = if class == CLASS_INTERNET { kind } else { 0 };
        Some(Record { name, kind, ttl: if ttl > i32::MAX as u32 { 0 } else { ttl }, data, end })
    }

    fn is(&self, name: &Name, kind: u16) -> bool {
        self.kind == kind && self.name == *name
    }
}

/// The name that a record consists of.
fn name_in(message: &[u8], record: &Record) -> Option<Name> {
    let (name, end) = Name::read(message, record.data)?;
    (end == record.end).then_some(name)
}

fn service(message: &[u8], record: &Record) -> Option<Service> {
    let at = record.data;
    let (target, end) = Name::read(message, at + 6)?;
    let [priority, weight, port] = [word(message, at)?, word(message, at + 2)?, word(message, at + 4)?];
    (end == record.end).then_some(Service { priority, weight, port, target })
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).expect("a name")
    }

    /// An answer with records (name, kind, ttl, data) after the question for `a.test`.
    fn message(flags: u16, kind: Kind, records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = question(7, &name("a.test"), kind);
        out[2..4].copy_from_slice(&(IS_ANSWER | flags).to_be_bytes());
        out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (name, kind, ttl, data) in records {
            out.extend_from_slice(name);
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&ttl.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    const SAME: &[u8] = &[0xc0, 12];
    const B: &[u8] = b"\x01b\x04test\0";

    fn read(message: &[u8], kind: Kind) -> Option<String> {
        let answer = answer(message, 7, &name("A.Test."), kind)?;
        let alias = answer.alias.map(|alias| String::from_utf8_lossy(&alias.0).into_owned());
        Some(format!("{} {} {:?} {alias:?} {}", answer.code, answer.truncated, answer.addresses, answer.ttl))
    }

    #[test]
    fn names() {
        let long = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
        for (text, good) in
            [("a", true), ("a.b.", true), (&long, true), ("", false), (".", false), ("a..b", false), (".a", false)]
        {
            assert_eq!(Name::parse(text.as_bytes()).is_some(), good, "{text}");
        }
        assert!(Name::parse(&[b'a'; 64]).is_none() && Name::parse(format!("a.{}", &long[1..]).as_bytes()).is_none());
        assert_eq!(
            question(0x0102, &name("A.b"), Kind::A),
            b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01"
        );
    }

    #[test]
    fn names_of_addresses() {
        let reverse = |ip: &str| Name::of_address(ip.parse().expect("an address")).host().expect("a name");
        assert_eq!(reverse("192.0.2.17"), "17.2.0.192.in-addr.arpa");
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(reverse("2001:db8::1"), nibbles);
        assert_eq!(Name::parse(b"a\r\nb.test").and_then(|name| name.host()), None);
        let answer = |records: &[(&[u8], u16, u32, &[u8])]| {
            let answer = answer(&message(0, Kind::Ptr, records), 7, &name("a.test"), Kind::Ptr)?;
            Some((answer.names.iter().filter_map(Name::host).collect::<Vec<_>>().join(" "), answer.alias.is_some()))
        };
        let none = String::new();
        assert_eq!(answer(&[]), Some((none.clone(), false)));
        assert_eq!(answer(&[(SAME, 12, 60, B)]), Some(("b.test".to_owned(), false)));
        assert_eq!(answer(&[(SAME, 5, 60, B)]), Some((none, true)));
        assert_eq!(answer(&[(SAME, 5, 60, B), (B, 12, 60, b"\x01c\x04test\0")]), Some(("c.test".to_owned(), false)));
        // Nothing where a name should be, and something else than a name.
        assert_eq!(answer(&[(SAME, 12, 60, b"")]), None);
        assert_eq!(answer(&[(SAME, 39, 60, B)]), None);
    }

    #[test]
    fn answers() {
        let check = |message: &[u8], expect: Option<&str>| assert_eq!(read(message, Kind::A).as_deref(), expect);
        let one: (&[u8], u16, u32, &[u8]) = (SAME, 1, 60, &[127, 0, 0, 1]);
        check(&message(0, Kind::A, &[one]), Some("0 false [127.0.0.1] None 60"));
        check(&message(0, Kind::A, &[]), Some("0 false [] None 4294967295"));
        check(&message(3, Kind::A, &[one]), Some("3 false [] None 4294967295"));
        check(&message(TRUNCATED | 1, Kind::A, &[one]), Some("1 false [] None 4294967295"));
        check(&message(TRUNCATED, Kind::A, &[one]), Some("0 true [] None 4294967295"));
        check(&message(0, Kind::A, &[(B, 1, 60, &[127, 0, 0, 1])]), Some("0 false [] None 4294967295"));
        // Aliases, in whatever order.
        let (alias, other): ((&[u8], u16, u32, &[u8]), _) = ((SAME, 5, 9, B), (B, 1, 60, &[127, 0, 0, 2][..]));
        let expect = Some("0 false [127.0.0.2] None 9");
        check(&message(0, Kind::A, &[alias, other]), expect);
        check(&message(0, Kind::A, &[other, alias]), expect);
        check(&message(0, Kind::A, &[alias]), Some("0 false [] Some(\"\\u{1}b\\u{4}test\\0\") 9"));
        check(&message(0, Kind::A, &[(SAME, 5, 9, SAME)]), None);
        check(&message(0, Kind::A, &[(SAME, 1, u32::MAX, &[1, 2, 3, 4])]), Some("0 false [1.2.3.4] None 0"));
        check(&message(0, Kind::A, &[(SAME, 1, 60, &[])]), None);
        let six = message(0, Kind::Aaaa, &[(SAME, 28, 60, &[0; 16])]);
        assert_eq!(read(&six, Kind::Aaaa).as_deref(), Some("0 false [::] None 60"));
        // Answers to other questions.
        check(&six, None);
        let good = message(0, Kind::A, &[one]);
        for at in [0, 1, 2, 5, 13, 14] {
            let mut other = good.clone();
            other[at] ^= 0x80;
            check(&other, None);
        }
        check(&[0, 7, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0], Some("1 false [] None 4294967295"));
        check(&[0, 7, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0], None);
        (0..good.len()).for_each(|len| check(&good[..len], None));
    }

    #[test]
    fn services() {
        let check = |data: &[u8], expect: Option<(u16, u16, u16, &str)>| {
            let message = message(0, Kind::Srv, &[(SAME, 33, 9, data)]);
            let answer = answer(&message, 7, &name("a.test"), Kind::Srv);
            let expect =
                expect.map(|(priority, weight, port, target)| Service { priority, weight, port, target: name(target) });
            assert_eq!(answer.map(|answer| answer.services), expect.map(|service| vec![service]));
        };
        check(b"\0\x01\0\x05\x1f\x90\x01b\x04test\0", Some((1, 5, 8080, "b.test")));
        check(b"\0\x01\0\x05\x1f\x90\xc0\x0c", Some((1, 5, 8080, "a.test")));
        check(b"\0\x01\0\x05\x1f\x90\x01b\x04test\0\0", None);
        check(b"\0\x01\0\x05\x1f", None);
        check(b"", None);
    }

    #[test]
    fn pointers_lead_back() {
        for (bytes, expect) in [
            (&b"\x01a\0"[..], Some(3)),
            (b"\x01a\xc0\0", None),
            (b"\xc0\0", None),
            (b"\xc0\x05", None),
            (b"\x80", None),
            (b"\x05a", None),
        ] {
            assert_eq!(Name::read(bytes, 0).map(|(_, end)| end), expect);
        }
        let chain = b"\x01a\0\x01b\xc0\0\xc0\x03";
        assert_eq!(Name::read(chain, 7), Some((name("b.a"), 9)));
    }
}
