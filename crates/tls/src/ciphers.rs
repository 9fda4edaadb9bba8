//! OpenSSL's language for lists of ciphers, applied to the suites that exist here.
//!
//! Existing suites are all "high": ECDHE with AES-GCM or ChaCha20. What else a list names is skipped, as OpenSSL
//! does with what it wasn't built with; a list that leaves nothing is an error.

use std::sync::LazyLock;

use rustls::crypto::aws_lc_rs::cipher_suite as suites;
use rustls::crypto::tls13::Hkdf;
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};

use crate::error::{Error, Result};
use crate::hkdf;

/// A suite with the words that name it in a list.
struct Entry {
    suite: SupportedCipherSuite,
    name: &'static str,
    /// Words that hold for it beside those that hold for all.
    words: &'static [&'static str],
    bits: u16,
}

/// Words that hold for every suite of TLS 1.2 that exists here.
const COMMON: &[&str] = &["ALL", "HIGH", "DEFAULT", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2", "FIPS"];

/// In the order in which OpenSSL has them.
const TLS12: &[Entry] = &[
    Entry {
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        words: &["aECDSA", "ECDSA", "AES", "AES256", "AESGCM", "SHA384", "SUITEB192", "SUITEB128"],
        bits: 256,
    },
    Entry {
        suite: suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        words: &["aRSA", "AES", "AES256", "AESGCM", "SHA384"],
        bits: 256,
    },
    Entry {
        suite: suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        words: &["aECDSA", "ECDSA", "CHACHA20"],
        bits: 256,
    },
    Entry {
        suite: suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        words: &["aRSA", "CHACHA20"],
        bits: 256,
    },
    Entry {
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        words: &["aECDSA", "ECDSA", "AES", "AES128", "AESGCM", "SHA256", "SUITEB128"],
        bits: 128,
    },
    Entry {
        suite: suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        words: &["aRSA", "AES", "AES128", "AESGCM", "SHA256"],
        bits: 128,
    },
];

/// The suites of TLS 1.3 in OpenSSL's order.
static TLS13: LazyLock<[(&str, Tls13CipherSuite); 3]> = LazyLock::new(|| {
    [
        ("TLS_AES_256_GCM_SHA384", own(suites::TLS13_AES_256_GCM_SHA384, &hkdf::SHA384)),
        ("TLS_CHACHA20_POLY1305_SHA256", own(suites::TLS13_CHACHA20_POLY1305_SHA256, &hkdf::SHA256)),
        ("TLS_AES_128_GCM_SHA256", own(suites::TLS13_AES_128_GCM_SHA256, &hkdf::SHA256)),
    ]
});

/// A suite of the provider's with HKDF of our own.
fn own(suite: SupportedCipherSuite, hkdf_provider: &'static dyn Hkdf) -> Tls13CipherSuite {
    let Tls13CipherSuite { common, aead_alg, quic, .. } = suite.tls13().expect("it is one of TLS 1.3");
    let CipherSuiteCommon { suite, hash_provider, confidentiality_limit } = *common;
    let common = CipherSuiteCommon { suite, hash_provider, confidentiality_limit };
    Tls13CipherSuite { common, hkdf_provider, aead_alg: *aead_alg, quic: *quic }
}

/// The suites of TLS 1.2 that a list such as `HIGH:!aNULL:!MD5` means, in its order.
pub fn tls12(list: &str) -> Result<Vec<SupportedCipherSuite>> {
    let mut state = List { chosen: Vec::new(), killed: [false; TLS12.len()] };
    for item in list.split([':', ',', ' ', ';']).filter(|item| !item.is_empty()) {
        let (words, commands) = item.split_at(item.find('@').unwrap_or(item.len()));
        if !words.is_empty() {
            state.apply(words);
        }
        for command in commands.split('@').skip(1) {
            state.command(command).ok_or_else(|| invalid(list))?;
        }
    }
    if state.chosen.is_empty() {
        return Err(no_match("SSL_CTX_set_cipher_list", list));
    }
    Ok(state.chosen.iter().map(|at| TLS12[*at].suite).collect())
}

/// The suites of TLS 1.3 that `Ciphersuites` names.
pub fn tls13(list: &str) -> Result<Vec<SupportedCipherSuite>> {
    let mut chosen = Vec::new();
    for name in list.split(':').filter(|name| !name.is_empty()) {
        match TLS13.iter().find(|(known, _)| *known == name) {
            Some((_, suite)) => chosen.push(SupportedCipherSuite::Tls13(suite)),
            None if matches!(name, "TLS_AES_128_CCM_SHA256" | "TLS_AES_128_CCM_8_SHA256") => {}
            None => return Err(no_match("SSL_CTX_set_ciphersuites", list)),
        }
    }
    Ok(chosen)
}

/// All suites of TLS 1.3.
pub(crate) fn all_tls13() -> Vec<SupportedCipherSuite> {
    TLS13.iter().map(|(_, suite)| SupportedCipherSuite::Tls13(suite)).collect()
}

fn invalid(list: &str) -> Error {
    let why = "error:0A000118:SSL routines::invalid command";
    Error::new(format!("SSL_CTX_set_cipher_list(\"{list}\") failed (SSL: {why})"))
}

fn no_match(function: &str, list: &str) -> Error {
    Error::new(format!("{function}(\"{list}\") failed (SSL: error:0A0000B9:SSL routines::no cipher match)"))
}

struct List {
    /// Indices into [`TLS12`], in order.
    chosen: Vec<usize>,
    /// Excluded for good by `!`.
    killed: [bool; TLS12.len()],
}

impl List {
    /// What stands after `@`, in any place. Levels of security exclude nothing here: what they would isn't there.
    fn command(&mut self, command: &str) -> Option<()> {
        if command == "STRENGTH" {
            self.chosen.sort_by_key(|at| std::cmp::Reverse(TLS12[*at].bits));
            return Some(());
        }
        matches!(command.strip_prefix("SECLEVEL=")?, "0" | "1" | "2" | "3" | "4" | "5").then_some(())
    }

    fn apply(&mut self, item: &str) {
        let (action, words) = match item.as_bytes()[0] {
            action @ (b'!' | b'-' | b'+') => (action, &item[1..]),
            _ => (b' ', item),
        };
        for (at, entry) in TLS12.iter().enumerate() {
            if entry.matches(words) {
                self.act(action, at);
            }
        }
    }

    fn act(&mut self, action: u8, at: usize) {
        let place = self.chosen.iter().position(|chosen| *chosen == at);
        match (action, place) {
            (b'!', _) => {
                self.killed[at] = true;
                self.chosen.retain(|chosen| *chosen != at);
            }
            (b'-', Some(place)) => {
                self.chosen.remove(place);
            }
            (b'+', Some(place)) => {
                self.chosen.remove(place);
                self.chosen.push(at);
            }
            (b' ', None) if !self.killed[at] => self.chosen.push(at),
            _ => {}
        }
    }
}

impl Entry {
    /// Whether all words, joined by `+`, hold for it.
    fn matches(&self, words: &str) -> bool {
        words.split('+').all(|word| word == self.name || self.words.contains(&word) || COMMON.contains(&word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn lists() {
        let check = |list: &str, expect: &str| {
            let names =
                tls12(list).map(|suites| suites.iter().map(|s| names::negotiated(s.suite())).collect::<Vec<_>>());
            let short = |name: &str| name.replace("ECDHE-", "").replace("-SHA256", "").replace("-SHA384", "");
            let names = names.map(|names| short(&names.join(" ")));
            assert_eq!(names.as_deref().unwrap_or("none"), expect, "{list}");
        };
        let all = "ECDSA-AES256-GCM RSA-AES256-GCM ECDSA-CHACHA20-POLY1305 RSA-CHACHA20-POLY1305 ECDSA-AES128-GCM RSA-AES128-GCM";
        check("HIGH:!aNULL:!MD5", all);
        check("ALL:!ADH:!RC4+RSA:+HIGH", all);
        check("DEFAULT", all);
        for list in [
            "DEFAULT@SECLEVEL=0",
            "@SECLEVEL=1:DEFAULT",
            "ALL:@SECLEVEL=2:!aNULL@SECLEVEL=5",
            "HIGH@STRENGTH@SECLEVEL=0",
        ] {
            check(list, all);
        }
        check(
            "ECDHE-RSA-AES128-GCM-SHA256@SECLEVEL=0:ECDHE-ECDSA-AES256-GCM-SHA384@STRENGTH",
            "ECDSA-AES256-GCM RSA-AES128-GCM",
        );
        for list in [
            "@SECLEVEL=1",
            "ALL@SECLEVEL=6",
            "ALL@SECLEVEL",
            "ALL:@SECLEVEL=x",
            "ALL:@NONSENSE",
            "ALL@",
            "DEFAULT@SECLEVEL=10",
        ] {
            check(list, "none");
        }
        check("ECDHE+AESGCM", "ECDSA-AES256-GCM RSA-AES256-GCM ECDSA-AES128-GCM RSA-AES128-GCM");
        check(
            "EECDH+CHACHA20:EECDH+AES128:RSA+AES128",
            "ECDSA-CHACHA20-POLY1305 RSA-CHACHA20-POLY1305 ECDSA-AES128-GCM RSA-AES128-GCM",
        );
        check("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256", "RSA-AES128-GCM ECDSA-AES128-GCM");
        check("ECDHE-RSA-AES128-GCM-SHA256 DHE-RSA-AES128-SHA AES128-SHA", "RSA-AES128-GCM");
        check("HIGH:-AES:!ECDSA", "RSA-CHACHA20-POLY1305");
        check("!aRSA:ALL:!AES256:@STRENGTH", "ECDSA-CHACHA20-POLY1305 ECDSA-AES128-GCM");
        check(
            "HIGH:+CHACHA20:!AES128",
            "ECDSA-AES256-GCM RSA-AES256-GCM ECDSA-CHACHA20-POLY1305 RSA-CHACHA20-POLY1305",
        );
        check("AES128-SHA", "none");
        check("RC4", "none");
        check("", "none");
    }

    #[test]
    fn names_of_tls_13() {
        assert_eq!(tls13("TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384").map(|list| list.len()), Ok(2));
        assert!(tls13("TLS_NONSENSE").is_err());
    }
}
