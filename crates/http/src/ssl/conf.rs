//! The `ssl_*` directives.

use std::rc::Rc;

use conf::values::{flag, number, one_of, sec, size, string};
use conf::{Args, Context, Directive, Error, Loader, Result, Word, table};
use engine::cycle::zones::{self, SMALLEST, SharedZone};
use engine::log::{LogFile, LogFiles, full_path};

use super::values::{
    CacheLimits, DEFAULT_PROTOCOLS, Named, certificate_cache, conf_command, file, interval, named, password_file,
    protocols,
};
use crate::config::core::SERVERS;
use crate::config::late::LateFile;

const ONE: Args = Args::exactly(1);
const PLACES: Context = SERVERS;

table! {
    /// TLS with clients.
    pub struct SslConf, raw SslRaw, module "ngx_http_ssl_module", level HTTP Server;

    /// Names the file with the server's certificate, followed by the intermediate certificates, in PEM. It may be
    /// repeated, each with its `ssl_certificate_key`, for certificates with keys of several kinds (RSA, ECDSA): the
    /// client's abilities choose.
    ///
    /// Form: `ssl_certificate file | data:certificate`
    ///
    /// - `file`: a file, relative to the folder of the configuration file. With variables it is loaded for each
    ///   connection.
    /// - `data:certificate`: the certificate itself, usually in a variable.
    ///
    /// Effect: the name that the client sends (SNI) chooses the server, and with it the certificate. Files are read at
    /// the start and on a reload, with the rights of the master; `ssl_certificate_refresh` reads them again when they
    /// change.
    ///
    /// Cost: with variables workers read the file at each handshake, unless `ssl_certificate_cache` keeps it, and must
    /// be allowed to.
    ///
    /// Danger: without intermediate certificates some clients (not browsers, as a rule) can't check the certificate. A
    /// key that workers can read, as variables demand, is lost with a worker that is taken over.
    ///
    /// ```nginx
    /// server {
    ///     listen 443 ssl;
    ///     server_name site;
    ///     ssl_certificate site.crt;
    ///     ssl_certificate_key site.key;
    /// }
    /// ```
    "ssl_certificate" in PLACES, ONE, default none,
        list(file) ssl_certificate: LateFile;
    /// A file with the private key of the certificate; also `data:` and variables. May be encrypted (`ssl_password_file`).
    "ssl_certificate_key" in PLACES, ONE, default none,
        list(file) ssl_certificate_key: LateFile;
    /// A file with passwords for encrypted keys, one in each line; they are tried one after the other.
    "ssl_password_file" in PLACES, ONE, default none,
        scalar(password_file) ssl_password_file: Rc<[Vec<u8>]> = Rc::new([]);
    /// Sets the versions of TLS that the server speaks.
    ///
    /// Form: `ssl_protocols version ...`
    ///
    /// - `version`: `TLSv1.2` or `TLSv1.3`. `SSLv2`, `SSLv3`, `TLSv1` and `TLSv1.1` are unsupported and ignored with a
    ///   warning.
    ///
    /// Effect: a client that speaks none of them gets the alert `protocol_version`. The address's default server
    /// decides for connections without a name (SNI), else the server that has the name.
    ///
    /// Danger: `TLSv1.3` alone refuses old clients; unsupported versions alone are an error.
    ///
    /// ```nginx
    /// ssl_protocols TLSv1.2 TLSv1.3;
    /// ```
    "ssl_protocols" in PLACES, Args::at_least(1), default "TLSv1.2 TLSv1.3",
        set(|raw: &mut SslRaw, l: &mut Loader<'_>, d: &Directive| protocols(&mut raw.ssl_protocols, l, d)) ssl_protocols: u32 = DEFAULT_PROTOCOLS;
    /// The ciphers of TLS 1.2, in OpenSSL's language. What doesn't exist here is passed over: there is ECDHE with AES-GCM
    /// or ChaCha20.
    "ssl_ciphers" in PLACES, ONE, default "HIGH:!aNULL:!MD5",
        scalar(string) ssl_ciphers: String = "HIGH:!aNULL:!MD5".to_owned();
    /// Whether the server's order of ciphers counts, not the client's.
    "ssl_prefer_server_ciphers" in PLACES, Args::FLAG, default "off",
        scalar(flag) ssl_prefer_server_ciphers: bool = false;
    /// Groups for the key exchange, in order. `auto`: X25519MLKEM768, X25519, P-256, P-384.
    "ssl_ecdh_curve" in PLACES, ONE, default "auto",
        scalar(string) ssl_ecdh_curve: String = "auto".to_owned();
    /// Accepted for compatibility: there are no ciphers with finite-field Diffie-Hellman.
    "ssl_dhparam" in PLACES, ONE, default none,
        scalar(named) ssl_dhparam: Named = Named::default();
    /// The most plaintext in a record that is sent. Small records reach the client's program sooner, large ones cost less.
    "ssl_buffer_size" in PLACES, ONE, default "16k",
        scalar(size) ssl_buffer_size: usize = 16384;
    /// Where sessions are kept, to be resumed: nowhere (`none`, `off`), or in a cache of the named size
    /// (`shared:name:size`), which servers may share.
    "ssl_session_cache" in PLACES, Args::between(1, 2), default "none",
        scalar(session_cache) ssl_session_cache: Option<Cache> = None;
    /// Whether clients get tickets, with which sessions are resumed without a cache.
    "ssl_session_tickets" in PLACES, Args::FLAG, default "on",
        scalar(flag) ssl_session_tickets: bool = true;
    /// A file of 48 or 80 random bytes: the key of tickets, for several machines to share. The first one makes tickets,
    /// further ones only open them.
    "ssl_session_ticket_key" in PLACES, ONE, default none,
        list(named) ssl_session_ticket_key: Named;
    /// How long sessions can be resumed.
    "ssl_session_timeout" in PLACES, ONE, default "5m",
        scalar(sec) ssl_session_timeout: u64 = 300;
    /// Whether certificates are compressed for clients that can decompress them.
    "ssl_certificate_compression" in PLACES, Args::FLAG, default "off",
        scalar(flag) ssl_certificate_compression: bool = false;
    /// With `ssl_stapling`, a file with an OCSP response in DER that is stapled to the certificate, in place of those from a
    /// responder.
    "ssl_stapling_file" in PLACES, ONE, default none,
        scalar(named) ssl_stapling_file: Named = Named::default();
    /// Whether OCSP responses are stapled to certificates. They are fetched in the background, for the first time when a
    /// client has used the certificate, and again in time. The issuer's certificate has to follow the server's own, or
    /// stand in `ssl_trusted_certificate`.
    "ssl_stapling" in PLACES, Args::FLAG, default "off",
        scalar(flag) ssl_stapling: bool = false;
    /// The URL of the OCSP responder, `http://…`, in place of the one that the certificate names.
    "ssl_stapling_responder" in PLACES, ONE, default none,
        scalar(string) ssl_stapling_responder: String = String::new();
    /// Whether responses are stapled only if the issuer has signed them, or a responder that it has authorized.
    "ssl_stapling_verify" in PLACES, Args::FLAG, default "off",
        scalar(flag) ssl_stapling_verify: bool = false;
    /// Not there yet: a warning says so.
    "ssl_ech_file" in PLACES, ONE, default none,
        list(named) ssl_ech_file: Named;
    /// Whether requests may come with the first message of a resumed session. They are served once the handshake is
    /// complete, so that nobody can replay them. Sessions are kept in a cache then, not in tickets.
    "ssl_early_data" in PLACES, Args::FLAG, default "off",
        scalar(flag) ssl_early_data: bool = false;
    /// How certificates with variables in their names are kept: `max=` so many, for `inactive=` after their last use,
    /// for `valid=` without looking at the file again.
    "ssl_certificate_cache" in PLACES, Args::between(1, 3), default "off",
        scalar(certificate_cache) ssl_certificate_cache: Option<CacheLimits> = None;
    /// How often the master looks whether files of `ssl_certificate`, `ssl_certificate_key` and `ssl_stapling_file` have
    /// changed. What has is taken without a reload once it is whole and certificate and key belong together; else an error is
    /// logged, and what was before stays. Workers are replaced as on a reload, without reading the configuration. Not for
    /// names with variables, which have `ssl_certificate_cache`.
    "ssl_certificate_refresh" in PLACES, ONE, default "off",
        scalar(interval) ssl_certificate_refresh: Option<u64> = None;
    /// A file to which the keys of connections are written, in the form of SSLKEYLOGFILE: with it recorded connections can
    /// be read (Wireshark). If there is none it is made, for its owner alone. As other logs, it is reopened on USR1.
    "ssl_key_log" in PLACES, ONE, default none,
        scalar(key_log) ssl_key_log: Option<Rc<LogFile>> = None;
    /// Whether handshakes are refused, for names that are nobody's.
    "ssl_reject_handshake" in PLACES, Args::FLAG, default "off",
        scalar(flag) ssl_reject_handshake: bool = false;
    /// Settings in OpenSSL's words: `Options`, `Ciphersuites`, `CipherString`, `Groups`, `Curves`, `MinProtocol`,
    /// `MaxProtocol`, `Protocol`, `Certificate`, `PrivateKey`.
    "ssl_conf_command" in PLACES, Args::exactly(2), default none,
        list(conf_command) ssl_conf_command: (String, String);
    /// Whether clients are asked for certificates: `on` demands a good one, `optional` takes none too, `optional_no_ca`
    /// takes any.
    "ssl_verify_client" in PLACES, ONE, default "off",
        scalar(one_of(VERIFY)) ssl_verify_client: VerifyClient = VerifyClient::Off;
    /// How many certificates may stand between the client's and the trusted one.
    "ssl_verify_depth" in PLACES, ONE, default "1",
        scalar(number) ssl_verify_depth: u32 = 1;
    /// A file with certificates that vouch for clients; clients are told their names.
    "ssl_client_certificate" in PLACES, ONE, default none,
        scalar(named) ssl_client_certificate: Named = Named::default();
    /// The same without telling clients.
    "ssl_trusted_certificate" in PLACES, ONE, default none,
        scalar(named) ssl_trusted_certificate: Named = Named::default();
    /// A file with lists of revoked certificates.
    "ssl_crl" in PLACES, ONE, default none,
        scalar(named) ssl_crl: Named = Named::default();
    /// Whether OCSP responders are asked for the status of clients' certificates: of the whole chain (`on`) or of the
    /// client's own (`leaf`). It takes `ssl_verify_client on` or `optional`.
    "ssl_ocsp" in PLACES, ONE, default "off",
        scalar(one_of(OCSP)) ssl_ocsp: Ocsp = Ocsp::Off;
    /// The URL of the OCSP responder, `http://…`, in place of the one that each certificate names.
    "ssl_ocsp_responder" in PLACES, ONE, default none,
        scalar(string) ssl_ocsp_responder: String = String::new();
    /// Where what responders said of clients' certificates is kept for all workers: nowhere, or `shared:name:size`.
    "ssl_ocsp_cache" in PLACES, ONE, default "off",
        scalar(ocsp_cache) ssl_ocsp_cache: Option<Rc<SharedZone>> = None;
}

/// `ssl_ocsp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ocsp {
    /// Nobody is asked.
    Off,
    /// About the whole chain.
    On,
    /// About the client's own certificate.
    Leaf,
}

const OCSP: &[(&str, Ocsp)] = &[("off", Ocsp::Off), ("on", Ocsp::On), ("leaf", Ocsp::Leaf)];

/// `ssl_session_cache`.
#[derive(Clone, PartialEq)]
pub enum Cache {
    /// In a zone.
    Shared(Rc<SharedZone>),
    /// In each worker's own memory, of so many bytes.
    Builtin(usize),
}

/// `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyClient {
    /// Clients aren't asked.
    Off,
    /// A good certificate is demanded.
    On,
    /// One that is given must be good.
    Optional,
    /// Any is taken.
    OptionalNoCa,
}

const VERIFY: &[(&str, VerifyClient)] = &[
    ("off", VerifyClient::Off),
    ("on", VerifyClient::On),
    ("optional", VerifyClient::Optional),
    ("optional_no_ca", VerifyClient::OptionalNoCa),
];

fn key_log(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<LogFile>>> {
    let path = full_path(loader, &d.arg(0).text);
    loader.places.note(engine::log::FILE, buf::text::path(&path), d.span());
    Ok(Some(loader.store.entry::<LogFiles>().get_private(&path)))
}

/// The cache's name and size, as the last word that names a shared one has it.
fn session_cache(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Cache>> {
    let mut cache = None;
    for word in &d.args {
        let text = word.lossy();
        match &*text {
            "off" | "none" => {}
            "builtin" => cache = Some(Cache::Builtin(BUILTIN * SESSION)),
            _ if text.strip_prefix("builtin:").is_some_and(|n| n.parse::<usize>().is_ok()) => {
                let sessions: usize = text["builtin:".len()..].parse().unwrap_or(BUILTIN);
                cache.get_or_insert(Cache::Builtin(sessions.saturating_mul(SESSION)));
            }
            _ => {
                let (name, size) = shared_cache(word, "session cache")?;
                let zone = zones::declare(loader, word, name.as_bytes(), size, "ngx_http_ssl_module")?;
                cache = Some(Cache::Shared(zone));
            }
        }
    }
    Ok(cache)
}

/// How many sessions OpenSSL's own cache holds.
const BUILTIN: usize = 20480;
/// What a session takes, in bytes.
const SESSION: usize = 256;

/// Name and size of `shared:name:size`; `what` it is stands in messages.
fn shared_cache(word: &Word, what: &str) -> Result<(String, usize)> {
    let text = word.lossy();
    let invalid = || Error::at(word, format!("invalid {what} \"{text}\""));
    let rest = text.strip_prefix("shared:").ok_or_else(invalid)?;
    let (name, size) = rest.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(invalid)?;
    let size = buf::parse::parse_size(size.as_bytes()).ok_or_else(invalid)? as usize;
    if size < SMALLEST {
        return Err(Error::at(word, format!("{what} \"{text}\" is too small")));
    }
    Ok((name.to_owned(), size))
}

fn ocsp_cache(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<SharedZone>>> {
    let word = d.arg(0);
    if *word == "off" {
        return Ok(None);
    }
    let (name, size) = shared_cache(word, "OCSP cache")?;
    zones::declare(loader, word, name.as_bytes(), size, OCSP_CACHE).map(Some)
}

/// Whose zones of OCSP's are; those of sessions hold something else.
const OCSP_CACHE: &str = "ngx_http_ssl_module ocsp";
