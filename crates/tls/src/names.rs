//! The names that OpenSSL has for what the wire numbers: cipher suites, groups, versions.

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

/// `$ssl_protocol`.
pub fn protocol(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

/// The name of a cipher suite; `None` for one that has none here.
pub fn suite(number: u16) -> Option<&'static str> {
    SUITES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The name of a negotiated suite.
pub fn negotiated(suite: CipherSuite) -> &'static str {
    self::suite(suite.into()).unwrap_or("unknown")
}

/// The name of a group, as OpenSSL spells it in lists.
pub fn group(number: u16) -> Option<&'static str> {
    GROUPS.iter().find(|(known, _)| *known == number).map(|(_, names)| names[0])
}

/// The name of a signature scheme.
pub fn signature(number: u16) -> Option<&'static str> {
    SIGNATURES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The name of a signature scheme, or its number in hexadecimal.
pub(crate) fn signature_or_number(number: u16) -> String {
    signature(number).map_or_else(|| format!("0x{number:04x}"), str::to_owned)
}

/// The group with that name, in any of its spellings.
pub(crate) fn group_by_name(name: &str) -> Option<NamedGroup> {
    let named = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    GROUPS.iter().find(|(_, names)| named(names)).map(|(number, _)| NamedGroup::from(*number))
}

/// A list of numbers as `$ssl_ciphers` and `$ssl_curves` show it: names, else hexadecimal, one after the other.
pub fn list(numbers: &[u16], name: fn(u16) -> Option<&'static str>) -> String {
    let mut text = String::new();
    for (n, number) in numbers.iter().enumerate() {
        text.push_str(if n > 0 { ":" } else { "" });
        match name(*number) {
            Some(name) => text.push_str(name),
            None => text.push_str(&format!("0x{number:04x}")),
        }
    }
    text
}

/// Groups with their names, the one for lists first.
const GROUPS: &[(u16, &[&str])] = &[
    (0x0017, &["prime256v1", "P-256", "secp256r1"]),
    (0x0018, &["secp384r1", "P-384"]),
    (0x0019, &["secp521r1", "P-521"]),
    (0x001d, &["X25519"]),
    (0x001e, &["X448"]),
    (0x001a, &["brainpoolP256r1"]),
    (0x001b, &["brainpoolP384r1"]),
    (0x001c, &["brainpoolP512r1"]),
    (0x0016, &["secp256k1"]),
    (0x0100, &["ffdhe2048"]),
    (0x0101, &["ffdhe3072"]),
    (0x0102, &["ffdhe4096"]),
    (0x0103, &["ffdhe6144"]),
    (0x0104, &["ffdhe8192"]),
    (0x0200, &["MLKEM512"]),
    (0x0201, &["MLKEM768"]),
    (0x0202, &["MLKEM1024"]),
    (0x11eb, &["SecP256r1MLKEM768"]),
    (0x11ec, &["X25519MLKEM768"]),
    (0x11ed, &["SecP384r1MLKEM1024"]),
];

const SIGNATURES: &[(u16, &str)] = &[
    (0x0403, "ecdsa_secp256r1_sha256"),
    (0x0503, "ecdsa_secp384r1_sha384"),
    (0x0603, "ecdsa_secp521r1_sha512"),
    (0x0807, "ed25519"),
    (0x0808, "ed448"),
    (0x081a, "ecdsa_brainpoolP256r1tls13_sha256"),
    (0x081b, "ecdsa_brainpoolP384r1tls13_sha384"),
    (0x081c, "ecdsa_brainpoolP512r1tls13_sha512"),
    (0x0303, "ecdsa_sha224"),
    (0x0203, "ecdsa_sha1"),
    (0x0804, "rsa_pss_rsae_sha256"),
    (0x0805, "rsa_pss_rsae_sha384"),
    (0x0806, "rsa_pss_rsae_sha512"),
    (0x0809, "rsa_pss_pss_sha256"),
    (0x080a, "rsa_pss_pss_sha384"),
    (0x080b, "rsa_pss_pss_sha512"),
    (0x0401, "rsa_pkcs1_sha256"),
    (0x0501, "rsa_pkcs1_sha384"),
    (0x0601, "rsa_pkcs1_sha512"),
    (0x0301, "rsa_pkcs1_sha224"),
    (0x0201, "rsa_pkcs1_sha1"),
    (0x0904, "mldsa44"),
    (0x0905, "mldsa65"),
    (0x0906, "mldsa87"),
];

const SUITES: &[(u16, &str)] = &[
    // Signals, not suites.
    (0x00ff, "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"),
    (0x5600, "TLS_FALLBACK_SCSV"),
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0x1304, "TLS_AES_128_CCM_SHA256"),
    (0x1305, "TLS_AES_128_CCM_8_SHA256"),
    (0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (0xc02f, "ECDHE-RSA-AES128-GCM-SHA256"),
    (0xc030, "ECDHE-RSA-AES256-GCM-SHA384"),
    (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"),
    (0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (0xccaa, "DHE-RSA-CHACHA20-POLY1305"),
    (0x009e, "DHE-RSA-AES128-GCM-SHA256"),
    (0x009f, "DHE-RSA-AES256-GCM-SHA384"),
    (0xc023, "ECDHE-ECDSA-AES128-SHA256"),
    (0xc024, "ECDHE-ECDSA-AES256-SHA384"),
    (0xc027, "ECDHE-RSA-AES128-SHA256"),
    (0xc028, "ECDHE-RSA-AES256-SHA384"),
    (0xc009, "ECDHE-ECDSA-AES128-SHA"),
    (0xc00a, "ECDHE-ECDSA-AES256-SHA"),
    (0xc013, "ECDHE-RSA-AES128-SHA"),
    (0xc014, "ECDHE-RSA-AES256-SHA"),
    (0xc012, "ECDHE-RSA-DES-CBC3-SHA"),
    (0xc008, "ECDHE-ECDSA-DES-CBC3-SHA"),
    (0xc0ac, "ECDHE-ECDSA-AES128-CCM"),
    (0xc0ad, "ECDHE-ECDSA-AES256-CCM"),
    (0xc09e, "DHE-RSA-AES128-CCM"),
    (0xc09f, "DHE-RSA-AES256-CCM"),
    (0x0067, "DHE-RSA-AES128-SHA256"),
    (0x006b, "DHE-RSA-AES256-SHA256"),
    (0x0033, "DHE-RSA-AES128-SHA"),
    (0x0039, "DHE-RSA-AES256-SHA"),
    (0x0016, "DHE-RSA-DES-CBC3-SHA"),
    (0x009c, "AES128-GCM-SHA256"),
    (0x009d, "AES256-GCM-SHA384"),
    (0xc09c, "AES128-CCM"),
    (0xc09d, "AES256-CCM"),
    (0x003c, "AES128-SHA256"),
    (0x003d, "AES256-SHA256"),
    (0x002f, "AES128-SHA"),
    (0x0035, "AES256-SHA"),
    (0x000a, "DES-CBC3-SHA"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        let check = |name: &str, number: u16| {
            assert_eq!(group_by_name(name).map(u16::from), Some(number), "{name}");
        };
        check("X25519", 29);
        check("p-256", 23);
        check("prime256v1", 23);
        check("secp384r1", 24);
        check("X25519MLKEM768", 0x11ec);
        assert_eq!(group_by_name("nonsense"), None);
        assert_eq!(list(&[0x1301, 0x0a0a, 0xc02f], suite), "TLS_AES_128_GCM_SHA256:0x0a0a:ECDHE-RSA-AES128-GCM-SHA256");
        assert_eq!(list(&[0x11ec, 29], group), "X25519MLKEM768:X25519");
    }
}
