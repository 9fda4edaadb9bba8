//! A connection's TLS between two processes: its keys, and all that may be asked about it later.

use buf::Secret;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ConnectionTrafficSecrets, NamedGroup, ProtocolVersion};
use wire::hello::ClientHello;
use wire::tagged::{Reader, Writer};

use crate::records::{Cipher, Keys, Records};
use crate::secured::Signatures;

/// What travels. The client's certificates are among it, the verdict isn't: whoever goes on judges by its own lights.
pub struct Departed {
    /// What the client said first.
    pub hello: ClientHello,
    /// Whether it was asked for a certificate.
    pub was_asked: bool,
    /// Whether responders were asked for the status of its certificates, and had nothing against them.
    pub was_good: bool,
    pub(crate) facts: Facts,
    pub(crate) records: Records,
    pub(crate) signatures: Signatures,
}

/// What the library knows of a handshake.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) version: ProtocolVersion,
    pub(crate) suite: CipherSuite,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) alpn: Option<Box<[u8]>>,
    pub(crate) resumed: bool,
    pub(crate) chain: Box<[CertificateDer<'static>]>,
}

impl Departed {
    /// Whether the client has sent certificates.
    pub fn has_certificates(&self) -> bool {
        !self.facts.chain.is_empty()
    }

    /// The message.
    pub fn encode(&self) -> Secret {
        let Facts { version, suite, group, alpn, resumed, chain } = &self.facts;
        let (read, write) = self.records.keys();
        let mut out = Writer::new(VERSION);
        out.bytes(1, &encode_hello(&self.hello)).flag(2, self.was_asked).flag(13, self.was_good);
        out.number(3, u16::from(*version).into()).number(4, u16::from(*suite).into());
        out.some(5, group.map(|group| u16::from(group).into())).list(6, alpn).flag(7, *resumed).list(8, &chain[..]);
        out.bytes(9, &encode_keys(read)).bytes(10, &encode_keys(write));
        out.some(11, self.signatures.own.map(u64::from)).some(12, self.signatures.client.map(u64::from));
        out.finish()
    }

    /// The state of a message.
    pub fn decode(bytes: &[u8]) -> Option<Departed> {
        let fields = Reader::new(VERSION, bytes)?;
        let short = |tag| fields.number(tag).and_then(|number| u16::try_from(number).ok());
        let version = ProtocolVersion::from(short(3)?);
        let tls13 = match version {
            ProtocolVersion::TLSv1_3 => true,
            ProtocolVersion::TLSv1_2 => false,
            _ => return None,
        };
        let keys = |tag| decode_keys(fields.bytes(tag)?);
        Some(Departed {
            hello: decode_hello(fields.bytes(1)?)?,
            was_asked: fields.flag(2),
            was_good: fields.flag(13),
            facts: Facts {
                version,
                suite: CipherSuite::from(short(4)?),
                group: short(5).map(NamedGroup::from),
                alpn: fields.bytes(6).map(Box::from),
                resumed: fields.flag(7),
                chain: fields.all(8).map(|der| CertificateDer::from(der.to_vec())).collect(),
            },
            records: Records::new(tls13, keys(9)?, keys(10)?)?,
            signatures: Signatures { own: short(11), client: short(12) },
        })
    }
}

fn encode_keys(keys: &Keys) -> Secret {
    let mut out = Writer::new(VERSION);
    out.number(1, keys.cipher as u64).bytes(2, &keys.key).bytes(3, &keys.iv).number(4, keys.sequence);
    out.finish()
}

fn decode_keys(bytes: &[u8]) -> Option<Keys> {
    let fields = Reader::new(VERSION, bytes)?;
    Some(Keys {
        cipher: Cipher::numbered(fields.number(1)?)?,
        key: fields.bytes(2)?.into(),
        iv: fields.bytes(3)?.into(),
        sequence: fields.number(4)?,
    })
}

impl Keys {
    /// The library's keys; `None` for a cipher that isn't known here.
    pub(crate) fn extracted((sequence, secrets): &(u64, ConnectionTrafficSecrets)) -> Option<Keys> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (cipher, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            Chacha20Poly1305 { key, iv } => (Cipher::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        Some(Keys { cipher, key: key.as_ref().into(), iv: iv.as_ref().into(), sequence: *sequence })
    }
}

fn encode_hello(hello: &ClientHello) -> Secret {
    let mut out = Writer::new(VERSION);
    out.number(1, hello.version.into());
    for (tag, numbers) in [(2, &hello.suites[..]), (3, &hello.groups), (4, &hello.signatures), (5, &hello.versions)] {
        out.bytes(tag, &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
    }
    out.list(6, &hello.server_name).bytes(7, &hello.alpn).flag(8, hello.resumes).flag(9, hello.early_data);
    out.finish()
}

fn decode_hello(bytes: &[u8]) -> Option<ClientHello> {
    let fields = Reader::new(VERSION, bytes)?;
    let numbers = |tag| {
        let (pairs, _) = fields.bytes(tag).unwrap_or_default().as_chunks();
        pairs.iter().map(|pair| u16::from_le_bytes(*pair))
    };
    Some(ClientHello {
        version: u16::try_from(fields.number(1)?).ok()?,
        suites: numbers(2).collect(),
        groups: numbers(3).collect(),
        signatures: numbers(4).collect(),
        versions: numbers(5).collect(),
        server_name: fields.bytes(6).map(Box::from),
        alpn: fields.bytes(7).unwrap_or_default().into(),
        resumes: fields.flag(8),
        early_data: fields.flag(9),
    })
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn departed(version: ProtocolVersion) -> Departed {
        let keys = |n: u8| Keys {
            cipher: Cipher::Aes128Gcm,
            key: vec![n; 16].into(),
            iv: vec![n; 12].into(),
            sequence: n.into(),
        };
        Departed {
            hello: ClientHello {
                version: 0x303,
                suites: [0x1301, 0x0a0a].into_iter().collect(),
                groups: [29].into_iter().collect(),
                server_name: Some(b"a.example"[..].into()),
                alpn: b"\x02h2"[..].into(),
                early_data: true,
                ..ClientHello::default()
            },
            was_asked: true,
            was_good: true,
            facts: Facts {
                version,
                suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
                group: Some(NamedGroup::X25519),
                alpn: None,
                resumed: true,
                chain: [b"one", b"two"].map(|der| CertificateDer::from(&der[..])).into(),
            },
            records: Records::new(version == ProtocolVersion::TLSv1_3, keys(1), keys(2)).unwrap(),
            signatures: Signatures { own: Some(0x0804), client: None },
        }
    }

    #[test]
    fn round_trip() {
        for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
            let sent = departed(version);
            let came = Departed::decode(&sent.encode()).unwrap();
            assert_eq!((&came.hello, &came.facts), (&sent.hello, &sent.facts));
            assert!(came.was_asked && came.was_good);
            assert_eq!(came.records.keys(), sent.records.keys());
            assert_eq!(came.signatures, sent.signatures);
        }
    }

    /// Whatever stands in a message: who goes on by it sends nothing under a number that is used up, and doesn't panic.
    #[test]
    fn bears_any_message() {
        use buf::Buf;
        let bytes = departed(ProtocolVersion::TLSv1_2).encode();
        for at in 0..bytes.len() {
            for with in [1, 0x80, 0xff] {
                let mut other = bytes.to_vec();
                other[at] ^= with;
                let Some(mut came) = Departed::decode(&other) else { continue };
                let (mut input, mut out) = (Buf::empty(), Buf::empty());
                input.extend_from_slice(&[23, 3, 3, 0, 30]);
                input.extend_from_slice(&[7; 30]);
                assert!(came.records.receive(&mut input, &mut Buf::empty(), &mut out).is_err());
                assert!(came.records.send(b"x", 1, &mut out).is_err());
                came.records.close(&mut out);
            }
        }
        let last = |cipher| Keys {
            cipher,
            key: vec![0; if cipher == Cipher::Aes128Gcm { 16 } else { 32 }].into(),
            iv: vec![0; 12].into(),
            sequence: u64::MAX,
        };
        for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let (mut records, mut out) = (Records::new(true, last(cipher), last(cipher)).unwrap(), Buf::empty());
            assert!(records.send(b"x", 1, &mut out).is_err() && out.is_empty());
        }
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let bytes = departed(ProtocolVersion::TLSv1_3).encode();
        for cut in 0..bytes.len() - 13 {
            assert!(Departed::decode(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        assert!(Departed::decode(&departed(ProtocolVersion::SSLv3).encode()).is_none());
        let short = Keys { cipher: Cipher::Aes256Gcm, key: vec![0; 16].into(), iv: vec![0; 12].into(), sequence: 0 };
        assert!(Records::new(true, short.clone(), short).is_none());
    }
}
