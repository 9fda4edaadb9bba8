//! The variables `$ssl_…`.

use expr::vars::Flags;
use tls::x509::Parts;
use tls::{ClientVerdict, Reason, Secured, names, text};

use crate::vars::text::put;
use crate::vars::{Getter, Setup};
use crate::{Facts, Proto};

/// Defines them.
pub(super) fn define<P: Proto>(setup: &mut Setup<P>) {
    of_connection(setup);
    of_client(setup);
}

fn of_connection<P: Proto>(setup: &mut Setup<P>) {
    let none = Flags::CHANGEABLE;
    crate::variables! { setup, P::tables().ssl.module();
        /// The version of TLS: `TLSv1.2` or `TLSv1.3`. Empty without TLS.
        "ssl_protocol", none, Getter::<P>::Plain(|s, out| of(s, |tls| put(out, tls.protocol().as_bytes())));
        /// The cipher of the connection, by OpenSSL's name. Empty without TLS.
        "ssl_cipher", none, Getter::<P>::Plain(|s, out| of(s, |tls| put(out, tls.cipher().as_bytes())));
        /// The group of the key exchange. Empty without TLS.
        "ssl_curve", none, Getter::<P>::Plain(|s, out| of(s, |tls| put(out, tls.curve().as_bytes())));
        /// The ciphers that the client offers, by OpenSSL's names, joined by colons; unknown ones as
        /// hexadecimal numbers. Empty without TLS.
        "ssl_ciphers", none, Getter::Plain(ciphers);
        /// The groups that the client offers, joined by colons; unknown ones as hexadecimal numbers. Empty
        /// without TLS.
        "ssl_curves", none, Getter::Plain(curves);
        /// The name that the client asks for (SNI). Empty without one, and without TLS.
        "ssl_server_name", none, Getter::Plain(server_name);
        /// Always empty: sessions have no identifier here that could be shown.
        "ssl_session_id", none, Getter::<P>::Plain(|s, out| of(s, |_| put(out, b"")));
        /// `r` if a session was resumed, `.` if not. Empty without TLS.
        "ssl_session_reused", none, Getter::<P>::Plain(|s, out| of(s, |tls| put(out, if tls.is_resumed() { b"r" } else { b"." })));
        /// The protocol that was chosen by ALPN (`h2`, `http/1.1`). Empty if none was, and without TLS.
        "ssl_alpn_protocol", none, Getter::<P>::Plain(|s, out| of(s, |tls| put(out, tls.alpn().unwrap_or_default())));
        /// The algorithm of the server's signature in the handshake. Empty without one, as in resumed sessions,
        /// and without TLS.
        "ssl_sigalg", none, Getter::<P>::Plain(|s, out| of(s, |tls| put(out, tls.signature().as_bytes())));
        /// The algorithm of the client's signature in the handshake. Empty without a client's certificate.
        "ssl_client_sigalg", none, Getter::<P>::Plain(|s, out| of(s, |tls| put(out, tls.client_signature().as_bytes())));
        /// Always empty: there is no encrypted ClientHello yet.
        "ssl_ech_status", none, Getter::<P>::Plain(|s, out| of(s, |_| put(out, b"")));
        /// Always empty: there is no encrypted ClientHello yet.
        "ssl_ech_outer_server_name", none, Getter::<P>::Plain(|s, out| of(s, |_| put(out, b"")));
        /// The signature algorithms that the client offers, joined by colons. Empty without TLS.
        "ssl_sigalgs", none, Getter::<P>::Plain(|s, out| {
                        of(s, |tls| put(out, names::list(&tls.hello.signatures, names::signature).as_bytes()))
                    });
        /// Always empty: requests are served once the handshake is complete.
        "ssl_early_data", Flags::CHANGEABLE | Flags::NOCACHEABLE, Getter::<P>::Plain(|s, out| of(s, |_| put(out, b"")));
    }
}

fn of_client<P: Proto>(setup: &mut Setup<P>) {
    let none = Flags::CHANGEABLE;
    crate::variables! { setup, P::tables().ssl.module();
        /// `SUCCESS`, `FAILED:` with the reason, or `NONE` if the client showed no certificate. Empty without
        /// TLS.
        "ssl_client_verify", none, Getter::<P>::Plain(|s, out| client_verify(s, out));
        /// The client's certificate in PEM, every line but the first indented by a tab, for fields of requests.
        /// Empty without one.
        "ssl_client_cert", none, Getter::<P>::Plain(|s, out| client(s, out, |der, _| indented(&text::pem(der))));
        /// The client's certificate in PEM. Empty without one.
        "ssl_client_raw_cert", none, Getter::<P>::Plain(|s, out| client(s, out, |der, _| text::pem(der)));
        /// The client's certificate in PEM, escaped as in a URI. Empty without one.
        "ssl_client_escaped_cert", none, Getter::<P>::Plain(|s, out| client(s, out, |der, _| escaped_certificate(der)));
        /// The subject of the client's certificate, in the form of RFC 2253. Empty without one.
        "ssl_client_s_dn", none, Getter::<P>::Plain(|s, out| client(s, out, |_, c| text::name(c.subject)));
        /// The issuer of the client's certificate, in the form of RFC 2253. Empty without one.
        "ssl_client_i_dn", none, Getter::<P>::Plain(|s, out| client(s, out, |_, c| text::name(c.issuer)));
        /// The subject of the client's certificate, in OpenSSL's older form with slashes. Empty without one.
        "ssl_client_s_dn_legacy", none, Getter::<P>::Plain(|s, out| client(s, out, |_, c| text::legacy_name(c.subject)));
        /// The issuer of the client's certificate, in OpenSSL's older form with slashes. Empty without one.
        "ssl_client_i_dn_legacy", none, Getter::<P>::Plain(|s, out| client(s, out, |_, c| text::legacy_name(c.issuer)));
        /// The serial number of the client's certificate, in hexadecimal digits. Empty without one.
        "ssl_client_serial", none, Getter::<P>::Plain(|s, out| client(s, out, |_, c| text::serial(c)));
        /// The SHA-1 fingerprint of the client's certificate, in hexadecimal digits. Empty without one.
        "ssl_client_fingerprint", none, Getter::<P>::Plain(|s, out| client(s, out, |der, _| text::fingerprint(der)));
        /// When the client's certificate begins to be valid. Empty without one.
        "ssl_client_v_start", none, Getter::<P>::Plain(|s, out| validity(s, out, |from, _| text::time(from)));
        /// When the client's certificate ends to be valid. Empty without one.
        "ssl_client_v_end", none, Getter::<P>::Plain(|s, out| validity(s, out, |_, until| text::time(until)));
        /// How many days the client's certificate will be valid; 0 if it isn't any more. Empty without one.
        "ssl_client_v_remain", none, Getter::<P>::Plain(|s, out| validity(s, out, |_, until| days_left(until)));
    }
}

/// A text about the client's certificate; empty if there is none.
fn client<S: Facts>(s: &S, out: &mut Vec<u8>, show: impl FnOnce(&[u8], &Parts<'_>) -> String) -> bool {
    of(s, |tls| {
        let leaf = tls.client_certificates().first();
        let text = leaf.and_then(|leaf| Some(show(leaf, &Parts::parse(leaf)?)));
        put(out, text.unwrap_or_default().as_bytes())
    })
}

fn validity<S: Facts>(s: &S, out: &mut Vec<u8>, show: impl FnOnce(u64, u64) -> String) -> bool {
    client(s, out, |_, certificate| certificate.validity().map(|(from, until)| show(from, until)).unwrap_or_default())
}

fn days_left(until: u64) -> String {
    let now = u64::try_from(rt::wall().secs).unwrap_or(0);
    (until.saturating_sub(now) / 86_400).to_string()
}

/// PEM as a header field can carry it: further lines begin with a tab.
fn indented(pem: &str) -> String {
    pem.trim_end().replace('\n', "\n\t")
}

/// A certificate in PEM, escaped as in a URI.
pub fn escaped_certificate(der: &[u8]) -> String {
    let pem = text::pem(der);
    let mut out = Vec::with_capacity(pem.len() * 2);
    wire::uri::escape(wire::uri::Escape::UriComponent, pem.as_bytes(), &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends what became of the client's certificate, in nginx's words; false without TLS.
pub fn client_verify<S: Facts>(s: &S, out: &mut Vec<u8>) -> bool {
    of(s, |tls| match tls.verdict() {
        ClientVerdict::None => put(out, b"NONE"),
        ClientVerdict::Trusted => put(out, b"SUCCESS"),
        ClientVerdict::Failed(Reason(_, text)) => put(out, b"FAILED:") && put(out, text.as_bytes()),
    })
}

/// Asks the connection's TLS; without TLS there is no value.
fn of<S: Facts>(s: &S, ask: impl FnOnce(&Secured) -> bool) -> bool {
    s.tls().is_some_and(ask)
}

fn ciphers<S: Facts>(s: &mut S, out: &mut Vec<u8>) -> bool {
    of(s, |tls| put(out, names::list(&tls.hello.suites, names::suite).as_bytes()))
}

fn curves<S: Facts>(s: &mut S, out: &mut Vec<u8>) -> bool {
    of(s, |tls| put(out, names::list(&tls.hello.groups, names::group).as_bytes()))
}

fn server_name<S: Facts>(s: &mut S, out: &mut Vec<u8>) -> bool {
    if let Some(pending) = s.pending_name() {
        return put(out, pending);
    }
    of(s, |tls| put(out, tls.hello.server_name.as_deref().unwrap_or_default()))
}
