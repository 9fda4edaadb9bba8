//! The ClientHello: what a TLS client says first (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2).
//!
//! It is read before the TLS library sees it, to choose the server by its name, and for `$ssl_ciphers` and the like.
//! Nothing is answered from here: what is malformed in a way that doesn't matter for these purposes is left to the library.

use smallvec::SmallVec;

/// What a ClientHello says, as far as servers are chosen by it or logs show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// `legacy_version`, such as 0x0303.
    pub version: u16,
    /// Cipher suites in the client's order.
    pub suites: SmallVec<[u16; 24]>,
    /// Groups (`supported_groups`) in the client's order.
    pub groups: SmallVec<[u16; 12]>,
    /// Signature schemes.
    pub signatures: SmallVec<[u16; 16]>,
    /// `supported_versions`; empty from clients that know no TLS 1.3.
    pub versions: SmallVec<[u16; 4]>,
    /// The host name of `server_name`, as it was sent; `None` without the extension. [`ClientHello::host`] is for comparing.
    pub server_name: Option<Box<[u8]>>,
    /// The protocols of ALPN, each after the byte of its length.
    pub alpn: Box<[u8]>,
    /// Whether the client would resume a session: a ticket, a pre-shared key or a session id.
    pub resumes: bool,
    /// Whether early data follows.
    pub early_data: bool,
}

/// Why bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// The first byte is none of a TLS handshake: perhaps plain HTTP.
    NotTls,
    /// The first byte isn't one of a TLS handshake, nor of plain HTTP: a hello as SSL 2 had it, for one.
    OtherProtocol,
    /// Another message, or another kind of record, where the ClientHello belongs.
    Unexpected,
    /// A record that is longer than records may be.
    LongRecord,
    /// A record or the message is malformed.
    Malformed,
    /// The message is longer than [`MAX_HELLO`].
    TooLong,
}

/// The longest ClientHello that is read, in bytes.
pub const MAX_HELLO: usize = 32 << 10;
/// The longest record that carries plaintext (RFC 8446 §5.1).
const MAX_RECORD: usize = 1 << 14;
/// Length of a record's header.
const RECORD_HEADER: usize = 5;

/// Length, type and version of a hello in SSL 2's form.
const OLD_START: usize = 5;
const TLS_1_3: u16 = 0x0304;
/// What drafts of TLS 1.3 called themselves: this and the draft's number.
const DRAFTS: std::ops::RangeInclusive<u16> = 0x7f00..=0x7fff;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

const EXT_SERVER_NAME: u16 = 0;
const EXT_GROUPS: u16 = 10;
const EXT_SIGNATURES: u16 = 13;
const EXT_ALPN: u16 = 16;
const EXT_TICKET: u16 = 35;
const EXT_PRE_SHARED_KEY: u16 = 41;
const EXT_EARLY_DATA: u16 = 42;
const EXT_VERSIONS: u16 = 43;

/// Reads the records at the start of a connection; `None` while the message isn't whole.
pub fn parse(input: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let Some(records) = message(input)? else { return Ok(None) };
    let mut message = Reader(&records);
    let kind = message.u8().ok_or(HelloError::Malformed)?;
    if kind != CLIENT_HELLO {
        return Err(HelloError::Unexpected);
    }
    let body = message.vec24().ok_or(HelloError::Malformed)?;
    hello(Reader(body)).map(Some).ok_or(HelloError::Malformed)
}

/// The version that a ClientHello in the form of SSL 2 offers (RFC 5246 §E.2), such as 0x0002 or 0x0301; `None` while its
/// start isn't whole. To be asked where [`parse`] finds [`HelloError::OtherProtocol`].
pub fn old_version(input: &[u8]) -> Result<Option<u16>, HelloError> {
    for (at, byte) in input.iter().enumerate().take(OLD_START) {
        let fits = match at {
            0 => *byte & 0x80 != 0,
            2 => *byte == CLIENT_HELLO,
            3 => matches!(byte, 0 | 3),
            _ => true,
        };
        if !fits {
            return Err(HelloError::OtherProtocol);
        }
    }
    Ok(input.first_chunk::<OLD_START>().map(|start| u16::from_be_bytes([start[3], start[4]])))
}

/// The handshake message's bytes, joined if they came in several records; `None` while some are missing.
fn message(input: &[u8]) -> Result<Option<std::borrow::Cow<'_, [u8]>>, HelloError> {
    match input.first() {
        None => return Ok(None),
        Some(&HANDSHAKE) => {}
        Some(0x80..) => return Err(HelloError::OtherProtocol),
        Some(_) => return Err(HelloError::NotTls),
    }
    let mut joined = Vec::new();
    let mut rest = Reader(input);
    loop {
        let Some(header) = rest.take(RECORD_HEADER) else { return Ok(None) };
        let &[kind, major, _, high, low] = header else { return Err(HelloError::Malformed) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match (kind, major, length) {
            (HANDSHAKE, 3, 1..=MAX_RECORD) => {}
            (HANDSHAKE, 3, 0) => return Err(HelloError::Malformed),
            (HANDSHAKE, 3, _) => return Err(HelloError::LongRecord),
            (HANDSHAKE, ..) => return Err(HelloError::OtherProtocol),
            _ => return Err(HelloError::Unexpected),
        }
        // What is there of an unfinished record already tells whether it can be a ClientHello.
        let part = &rest.0[..length.min(rest.0.len())];
        let start = if joined.is_empty() { part } else { &joined[..] };
        if start.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(HelloError::Unexpected);
        }
        let Some(part) = rest.take(length) else { return Ok(None) };
        if joined.is_empty() && needed(part)?.is_some_and(|needed| needed <= part.len()) {
            return Ok(Some(part.into()));
        }
        joined.extend_from_slice(part);
        if needed(&joined)?.is_some_and(|needed| needed <= joined.len()) {
            return Ok(Some(joined.into()));
        }
    }
}

/// The length of the message with its header, once that is there.
fn needed(message: &[u8]) -> Result<Option<usize>, HelloError> {
    let Some(&[_, a, b, c]) = message.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes([0, a, b, c]) as usize + 4;
    if length > MAX_HELLO { Err(HelloError::TooLong) } else { Ok(Some(length)) }
}

fn hello(mut body: Reader<'_>) -> Option<ClientHello> {
    let mut hello = ClientHello { version: body.u16()?, ..ClientHello::default() };
    body.take(32)?;
    hello.resumes = !body.vec8()?.is_empty() && hello.version < 0x0303;
    hello.suites = numbers(body.vec16()?)?;
    body.vec8()?;
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vec16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let value = match extensions.vec16() {
            Some(value) => value,
            // Versions that are cut off by the end are still told, as by nginx; the library refuses them.
            None if kind == EXT_VERSIONS => std::mem::take(&mut extensions.0),
            None => return None,
        };
        extension(&mut hello, kind, Reader(value))?;
    }
    Some(hello)
}

fn extension(hello: &mut ClientHello, kind: u16, mut value: Reader<'_>) -> Option<()> {
    match kind {
        EXT_SERVER_NAME => hello.server_name = server_name(value)?,
        EXT_GROUPS => hello.groups = numbers(value.vec16()?)?,
        EXT_SIGNATURES => hello.signatures = numbers(value.vec16()?)?,
        EXT_VERSIONS => hello.versions = numbers(value.vec8()?)?,
        EXT_ALPN => hello.alpn = value.vec16()?.into(),
        EXT_TICKET => hello.resumes |= !value.0.is_empty(),
        EXT_PRE_SHARED_KEY => hello.resumes = true,
        EXT_EARLY_DATA => hello.early_data = true,
        _ => {}
    }
    Some(())
}

/// The host name among the names (RFC 6066 §3); an empty list or a name of another type is none.
fn server_name(mut value: Reader<'_>) -> Option<Option<Box<[u8]>>> {
    if value.0.is_empty() {
        return Some(None);
    }
    let mut list = Reader(value.vec16()?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vec16()?;
        if kind == 0 && !name.is_empty() {
            return Some(Some(name.into()));
        }
    }
    Some(None)
}

fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".").unwrap_or(name)
}

fn numbers<A: smallvec::Array<Item = u16>>(bytes: &[u8]) -> Option<SmallVec<A>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

impl ClientHello {
    /// The name in lower case and without a dot at its end, as servers are chosen by it.
    pub fn host(&self) -> Option<Vec<u8>> {
        self.server_name.as_deref().map(|name| without_dot(name).to_ascii_lowercase())
    }

    /// Whether the name is this host, which is in lower case and without a dot at its end.
    pub fn is_for(&self, host: &[u8]) -> bool {
        // Most clients send it in lower case, and comparing bytes as they are is much faster.
        let is_host = |name: &[u8]| name == host || name.eq_ignore_ascii_case(host);
        self.server_name.as_deref().is_some_and(|name| is_host(without_dot(name)))
    }

    /// The protocols of ALPN.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Reader(&self.alpn);
        std::iter::from_fn(move || rest.vec8().filter(|name| !name.is_empty()))
    }

    /// The highest version that the client offers, as far as there are such versions; drafts of TLS 1.3 are that.
    pub fn highest_version(&self) -> u16 {
        let known = |version: &u16| match *version {
            draft if DRAFTS.contains(&draft) => Some(TLS_1_3),
            version => (0x0300..=TLS_1_3).contains(&version).then_some(version),
        };
        self.versions.iter().filter_map(known).max().unwrap_or(self.version)
    }

    /// Whether the client offers this version, such as 0x0304.
    pub fn offers(&self, version: u16) -> bool {
        if self.versions.is_empty() { version <= self.version } else { self.versions.contains(&version) }
    }
}

/// Takes from the front; `None` where there isn't enough.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let n = self.u8()?;
        self.take(n.into())
    }

    fn vec16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }

    fn vec24(&mut self) -> Option<&'a [u8]> {
        let &[a, b, c] = self.take(3)?.first_chunk()?;
        self.take(u32::from_be_bytes([0, a, b, c]) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vec16(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vec16(value)].concat()
    }

    /// A message with these extensions.
    fn message_of(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vec16(&[0x13, 0x01, 0xc0, 0x2b]));
        body.extend([1, 0]);
        body.extend(vec16(&extensions.concat()));
        let mut message = vec![1];
        message.extend(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    /// The message in records of `size` bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &vec16(part)].concat()).collect()
    }

    fn sample() -> Vec<u8> {
        let name = [&[0][..], &vec16(b"WWW.Example.com.")].concat();
        message_of(&[
            extension(0, &vec16(&name)),
            extension(10, &vec16(&[0x11, 0xec, 0, 29])),
            extension(13, &vec16(&[4, 3, 8, 4])),
            extension(43, &[4, 3, 4, 3, 3]),
            extension(16, &vec16(b"\x02h2\x08http/1.1")),
            extension(41, b"x"),
        ])
    }

    #[test]
    fn reads_what_matters() {
        let hello = parse(&records(&sample(), 16384)).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some(&b"WWW.Example.com."[..]));
        assert_eq!(hello.host().as_deref(), Some(&b"www.example.com"[..]));
        assert!(hello.is_for(b"www.example.com") && !hello.is_for(b"www.example.com.") && !hello.is_for(b""));
        assert_eq!((&hello.suites[..], &hello.groups[..]), (&[0x1301, 0xc02b][..], &[0x11ec, 29][..]));
        assert_eq!((&hello.signatures[..], &hello.versions[..]), (&[0x0403, 0x0804][..], &[0x0304, 0x0303][..]));
        assert_eq!(hello.protocols().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
        assert!(hello.resumes && hello.offers(0x0303) && !hello.offers(0x0302));
    }

    #[test]
    fn versions() {
        for (version, versions, expect) in [
            (0x0300, &[][..], 0x0300),
            (0x0303, &[], 0x0303),
            (0x0303, &[0x0a0a, 0x0304, 0x0303], 0x0304),
            (0x0303, &[0x0302, 0x0303], 0x0303),
            (0x0303, &[0x7f1c], 0x0304),
            (0x0303, &[0xfafa], 0x0303),
        ] {
            let hello = ClientHello { version, versions: versions.into(), ..ClientHello::default() };
            assert_eq!(hello.highest_version(), expect, "{version:x} {versions:x?}");
        }
        for (bytes, expect) in [
            (&b"\x80\x1c\x01\0\x02\0\x03"[..], Ok(Some(0x0002))),
            (b"\x80\x1c\x01\x03\x01", Ok(Some(0x0301))),
            (b"\x80\x1c\x01", Ok(None)),
            (b"\x80\x1c\x02", Err(HelloError::OtherProtocol)),
            (b"\x80\x1c\x01\x07", Err(HelloError::OtherProtocol)),
            (b"GET /", Err(HelloError::OtherProtocol)),
            (b"", Ok(None)),
        ] {
            assert_eq!(old_version(bytes), expect, "{bytes:x?}");
        }
    }

    #[test]
    fn splits_at_every_byte_and_into_any_records() {
        let message = sample();
        let whole = parse(&records(&message, 16384)).unwrap();
        for size in [1, 3, 4, 5, 50, message.len() - 1] {
            let bytes = records(&message, size);
            assert_eq!(parse(&bytes).unwrap(), whole, "records of {size}");
            for n in 0..bytes.len() {
                assert_eq!(parse(&bytes[..n]), Ok(None), "{n} bytes, records of {size}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_hello() {
        let check = |bytes: &[u8], expect| assert_eq!(parse(bytes), Err(expect), "{bytes:?}");
        check(b"GET / HTTP/1.0\r\n", HelloError::NotTls);
        check(&[21, 3, 1, 0, 2, 1, 0], HelloError::NotTls);
        check(&[0x80, 0x2e, 1, 0, 2], HelloError::OtherProtocol);
        check(&[22, 2, 1, 0, 2, 1, 0], HelloError::OtherProtocol);
        check(&[22, 3, 1, 0, 0], HelloError::Malformed);
        check(&[22, 3, 1, 0x40, 1], HelloError::LongRecord);
        check(&[22, 3, 1, 0, 4, 2, 0, 0, 0], HelloError::Unexpected);
        check(&[22, 3, 1, 0, 1, 1, 23, 3, 1, 0, 1], HelloError::Unexpected);
        check(&[22, 3, 1, 0, 4, 1, 1, 0, 0], HelloError::TooLong);
        check(&[22, 3, 1, 0, 4, 1, 0, 0, 0], HelloError::Malformed);
        let mut torn = sample();
        let last = torn.len() - 2;
        torn[last] = 9;
        check(&records(&torn, 16384), HelloError::Malformed);
    }

    #[test]
    fn versions_may_be_cut_off() {
        let mut message = message_of(&[extension(EXT_VERSIONS, &[2, 0x7f, 0x1c])]);
        let length = message.len() - 4;
        message[length] = 7;
        let hello = parse(&records(&message, 16384)).unwrap().unwrap();
        assert_eq!((&hello.versions[..], hello.highest_version()), (&[0x7f1c][..], 0x0304));
    }

    #[test]
    fn an_old_hello_has_no_extensions() {
        let mut message = message_of(&[]);
        message.truncate(message.len() - 2);
        message[3] -= 2;
        let hello = parse(&records(&message, 16384)).unwrap().unwrap();
        assert!(hello.server_name.is_none() && hello.offers(0x0303) && !hello.offers(0x0304) && !hello.resumes);
    }

    #[test]
    fn the_length_has_a_bound() {
        let mut bytes = Vec::new();
        for n in 0..3 {
            let mut part = vec![0; MAX_RECORD];
            if n == 0 {
                part[..4].copy_from_slice(&[1, 0, 0x7f, 0xfd]);
            }
            bytes.extend(records(&part, MAX_RECORD));
        }
        assert_eq!(parse(&bytes), Err(HelloError::TooLong));
    }
}
