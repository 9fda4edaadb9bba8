//! The `ssl_*` directives.

use std::rc::Rc;

use conf::values::{clamped, flag, one_of, replace, sec, size, string};
use conf::{Args, Directive, Error, Level, Loader, Result, Word, table};
use engine::cycle::zones::{self, Owner, SMALLEST, SharedZone};
use engine::log::{LogFile, LogFiles, full_path};
use tls::KeySink;

use super::LateFile;
use super::values::{
    CacheLimits, DEFAULT_PROTOCOLS, Named, certificate_cache, conf_command, file, interval, named, password_file,
    protocols,
};
use crate::Proto;

const ONE: Args = Args::exactly(1);

table! {
    /// TLS with clients.
    pub struct SslConf of P: Proto, raw SslRaw,
        at P::tables().ssl, block P::PLACES.block, level Level::Server;

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
    /// ```nginx http stream
    /// server {
    ///     listen 443 ssl;
    ///     server_name site;
    ///     ssl_certificate site.crt;
    ///     ssl_certificate_key site.key;
    /// }
    /// ```
    ///
    /// ```nginx mail
    /// ssl_certificate site.crt;
    /// ssl_certificate_key site.key;
    /// ```
    "ssl_certificate" in P::PLACES.servers, ONE, default none,
        list(file) ssl_certificate: LateFile;
    /// Names the file with the private key of a certificate, in PEM.
    ///
    /// Form: `ssl_certificate_key file | data:key`
    ///
    /// - `file`: a file, relative to the folder of the configuration file. With variables it is loaded for each
    ///   connection.
    /// - `data:key`: the key itself, usually in a variable.
    ///
    /// Effect: it belongs to the `ssl_certificate` in the same place of their order. An encrypted key needs
    /// `ssl_password_file`. It is read at the start and on a reload, with the rights of the master.
    ///
    /// Danger: whoever can read the key can answer in the server's place. Let only the superuser read the file; with
    /// variables, workers have to.
    ///
    /// ```nginx http stream
    /// server {
    ///     listen 443 ssl;
    ///     ssl_certificate site.crt;
    ///     ssl_certificate_key site.key;
    /// }
    /// ```
    ///
    /// ```nginx mail
    /// ssl_certificate site.crt;
    /// ssl_certificate_key site.key;
    /// ```
    "ssl_certificate_key" in P::PLACES.servers, ONE, default none,
        list(file) ssl_certificate_key: LateFile;
    /// Names the file with passwords for encrypted keys.
    ///
    /// Form: `ssl_password_file file`
    ///
    /// - `file`: one password in each line, relative to the folder of the configuration file.
    ///
    /// Effect: they are tried in this order when an `ssl_certificate_key` is read.
    ///
    /// Danger: whoever can read both files has the key.
    ///
    /// ```nginx
    /// ssl_password_file passwords;
    /// ```
    "ssl_password_file" in P::PLACES.servers, ONE, default none,
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
    "ssl_protocols" in P::PLACES.servers, Args::at_least(1), default "TLSv1.2 TLSv1.3",
        set(|raw: &mut SslRaw, l: &mut Loader<'_>, d: &Directive| protocols(&mut raw.ssl_protocols, l, d)) ssl_protocols: u32 = DEFAULT_PROTOCOLS;
    /// Sets the ciphers of TLS 1.2.
    ///
    /// Form: `ssl_ciphers list`
    ///
    /// - `list`: a list in OpenSSL's language. ECDHE with AES-GCM or ChaCha20 is supported; other ciphers are ignored.
    ///
    /// Effect: a client without any of them, and without TLS 1.3, is refused. The ciphers of TLS 1.3 are set with
    /// `ssl_conf_command Ciphersuites`.
    ///
    /// Danger: all ciphers that exist here are secure today; a list that names old ones only leaves none.
    ///
    /// ```nginx
    /// ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
    /// ```
    "ssl_ciphers" in P::PLACES.servers, ONE, default "HIGH:!aNULL:!MD5",
        scalar(string) ssl_ciphers: String = "HIGH:!aNULL:!MD5".to_owned();
    /// Chooses the cipher by the server's order of preference if it is `on`, by the client's if it is `off`.
    ///
    /// Effect: with `off`, a phone without hardware for AES gets ChaCha20, which is faster for it.
    ///
    /// ```nginx
    /// ssl_prefer_server_ciphers on;
    /// ```
    "ssl_prefer_server_ciphers" in P::PLACES.servers, Args::FLAG, default "off",
        scalar(flag) ssl_prefer_server_ciphers: bool = false;
    /// Sets the groups (curves) for the key exchange.
    ///
    /// Form: `ssl_ecdh_curve group[:group...]`
    ///
    /// - `group`: a name, the preferred one first.
    /// - `auto`: X25519MLKEM768, X25519, P-256 and P-384.
    ///
    /// Effect: a client without any of them is refused.
    ///
    /// Danger: without X25519MLKEM768, connections that are recorded today may be read with quantum computers of the
    /// future.
    ///
    /// ```nginx
    /// ssl_ecdh_curve X25519:prime256v1;
    /// ```
    "ssl_ecdh_curve" in P::PLACES.servers, ONE, default "auto",
        scalar(string) ssl_ecdh_curve: String = "auto".to_owned();
    /// Accepted for compatibility: there are no ciphers with finite-field Diffie-Hellman.
    "ssl_dhparam" in P::PLACES.servers, ONE, default none,
        scalar(named) ssl_dhparam: Named = Named::default();
    /// Limits the plaintext in a TLS record that is sent.
    ///
    /// Form: `ssl_buffer_size size`
    ///
    /// - `size`: a record holds at most 16k.
    ///
    /// Effect: a client can use a record only when all of it has arrived: small records show the first bytes sooner.
    ///
    /// Cost: small records take more processor time and bytes for the same data.
    ///
    /// ```nginx
    /// ssl_buffer_size 4k;
    /// ```
    "ssl_buffer_size" in P::PLACES.servers, ONE, default "16k",
        scalar(size) ssl_buffer_size: usize = 16384;
    /// Sets where sessions are kept, so that clients can resume them without a full handshake.
    ///
    /// Form: `ssl_session_cache none | off | builtin[:number] | shared:name:size`
    ///
    /// - `none`, `off`: no sessions are kept; tickets (`ssl_session_tickets`) still allow clients to resume.
    /// - `builtin[:number]`: in the memory of each worker, up to this number; the default is 20480. Another worker
    ///   doesn't find them.
    /// - `shared:name:size`: in a zone of shared memory with this name, for all workers. Servers may share a zone.
    ///
    /// Effect: it helps clients that don't support tickets, and all clients where tickets are off.
    ///
    /// Cost: the zone's memory, and a lock in it for each handshake.
    ///
    /// Danger: a session in a shared zone is a secret in memory that all workers read.
    ///
    /// ```nginx
    /// ssl_session_cache shared:sessions:10m;
    /// ```
    "ssl_session_cache" in P::PLACES.servers, Args::between(1, 2), default "none",
        set(|raw: &mut SslRaw, l: &mut Loader<'_>, d: &Directive| replace(&mut raw.ssl_session_cache, session_cache::<P>, l, d))
            ssl_session_cache: Option<Cache> = None;
    /// Sends clients tickets if it is `on`: the encrypted session, with which they resume without a cache.
    ///
    /// Effect: a resumed handshake is shorter and needs no signature. Keys are made at random and replaced regularly,
    /// unless `ssl_session_ticket_key` names a file.
    ///
    /// Danger: whoever has a ticket's key can read recorded sessions of TLS 1.2 that used it.
    ///
    /// ```nginx
    /// ssl_session_tickets off;
    /// ```
    "ssl_session_tickets" in P::PLACES.servers, Args::FLAG, default "on",
        scalar(flag) ssl_session_tickets: bool = true;
    /// Names the file with the key of tickets, so that several machines can share it.
    ///
    /// Form: `ssl_session_ticket_key file`
    ///
    /// - `file`: 48 or 80 random bytes, relative to the folder of the configuration file.
    ///
    /// Effect: the first key of a server encrypts and opens tickets; those that follow, when the directive is repeated,
    /// only open them. Tickets can be opened by Tidegate only.
    ///
    /// Danger: the key isn't replaced by itself. Replace it daily, keep the old one as the second for a while, and
    /// reload; keep the file secret.
    ///
    /// ```nginx
    /// ssl_session_ticket_key ticket.key;
    /// ```
    "ssl_session_ticket_key" in P::PLACES.servers, ONE, default none,
        list(named) ssl_session_ticket_key: Named;
    /// Sets how long a session can be resumed.
    ///
    /// Form: `ssl_session_timeout time`
    ///
    /// - `time`: counted from the handshake that made the session.
    ///
    /// Effect: it holds for sessions in caches and for tickets. Random keys of tickets are replaced with each such
    /// time.
    ///
    /// Danger: a long time lengthens what a stolen key can read.
    ///
    /// ```nginx
    /// ssl_session_timeout 1h;
    /// ```
    "ssl_session_timeout" in P::PLACES.servers, ONE, default "5m",
        scalar(sec) ssl_session_timeout: u64 = 300;
    /// Compresses certificates for clients that support it if it is `on`.
    ///
    /// Effect: the handshake is smaller, so that it fits into the first packets more often.
    ///
    /// Cost: processor time for compressing.
    ///
    /// ```nginx
    /// ssl_certificate_compression on;
    /// ```
    "ssl_certificate_compression" in P::PLACES.servers, Args::FLAG, default "off",
        scalar(flag) ssl_certificate_compression: bool = false;
    /// Names the file with an OCSP response that is stapled to the certificate.
    ///
    /// Form: `ssl_stapling_file file`
    ///
    /// - `file`: the response in DER, relative to the folder of the configuration file.
    ///
    /// Effect: with `ssl_stapling on` it is used in place of responses of a responder. It is read at the start and on a
    /// reload; `ssl_certificate_refresh` reads it again when it changes.
    ///
    /// Danger: nobody renews it but you: clients may refuse an outdated response.
    ///
    /// ```nginx
    /// ssl_stapling on;
    /// ssl_stapling_file site.ocsp;
    /// ```
    "ssl_stapling_file" in P::PLACES.servers, ONE, default none,
        scalar(named) ssl_stapling_file: Named = Named::default();
    /// Staples OCSP responses to certificates if it is `on`.
    ///
    /// Effect: clients learn that the certificate isn't revoked without asking the authority. A response is fetched in
    /// the background, for the first time when a client has used the certificate, and again before it expires; until
    /// then nothing is stapled. The issuer's certificate has to follow the server's own in `ssl_certificate`, or be in
    /// `ssl_trusted_certificate`. A responder's host name needs a `resolver`.
    ///
    /// Cost: a request to the responder from time to time.
    ///
    /// ```nginx
    /// ssl_stapling on;
    /// resolver 127.0.0.1;
    /// ```
    "ssl_stapling" in P::PLACES.servers, Args::FLAG, default "off",
        scalar(flag) ssl_stapling: bool = false;
    /// Sets the URL of the OCSP responder for stapling.
    ///
    /// Form: `ssl_stapling_responder url`
    ///
    /// - `url`: `http://...`; without this directive, the one that the certificate names is used.
    ///
    /// Effect: responses are fetched from there.
    ///
    /// ```nginx
    /// ssl_stapling on;
    /// ssl_stapling_responder http://127.0.0.1:8888/;
    /// ```
    "ssl_stapling_responder" in P::PLACES.servers, ONE, default none,
        scalar(string) ssl_stapling_responder: String = String::new();
    /// Checks OCSP responses before they are stapled if it is `on`.
    ///
    /// Effect: only a response that is signed by the certificate's issuer, or by a responder that the issuer
    /// authorized, is stapled.
    ///
    /// Cost: signatures are checked each time that a response is fetched.
    ///
    /// ```nginx
    /// ssl_stapling on;
    /// ssl_stapling_verify on;
    /// ```
    "ssl_stapling_verify" in P::PLACES.servers, Args::FLAG, default "off",
        scalar(flag) ssl_stapling_verify: bool = false;
    /// Accepted for compatibility, with a warning: encrypted ClientHello isn't supported yet.
    "ssl_ech_file" in P::PLACES.servers, ONE, default none,
        list(named) ssl_ech_file: Named;
    /// Accepts requests in the first message of a resumed session of TLS 1.3 if it is `on`.
    ///
    /// Effect: the request is served when the handshake is complete, so that it can't be replayed; `$ssl_early_data` is
    /// always empty.
    ///
    /// Cost: sessions are kept in a cache then, not in tickets.
    ///
    /// ```nginx
    /// ssl_early_data on;
    /// ```
    "ssl_early_data" in P::PLACES.servers, Args::FLAG, default "off",
        scalar(flag) ssl_early_data: bool = false;
    /// Keeps certificates whose names contain variables in the memory of workers.
    ///
    /// Form: `ssl_certificate_cache off | max=number [inactive=time] [valid=time]`
    ///
    /// - `max=number`: how many files are kept; a certificate and its key are two.
    /// - `inactive=time`: one that hasn't been used for this time is dropped; the default is 10s.
    /// - `valid=time`: how long one is used before its file is read again; the default is 60s.
    /// - `off`: none are kept.
    ///
    /// Effect: certificates and keys aren't read at each handshake. An encrypted key isn't kept.
    ///
    /// Cost: memory in each worker for each certificate.
    ///
    /// Danger: a replaced file is used after `valid` only.
    ///
    /// ```nginx
    /// ssl_certificate_cache max=1000 inactive=20s valid=1m;
    /// ```
    "ssl_certificate_cache" in P::PLACES.servers, Args::between(1, 3), default "off",
        scalar(certificate_cache) ssl_certificate_cache: Option<CacheLimits> = None;
    /// Takes changed certificates into use without a reload.
    ///
    /// Form: `ssl_certificate_refresh interval | off`
    ///
    /// - `interval`: how often the master looks whether the files of `ssl_certificate`, `ssl_certificate_key` and
    ///   `ssl_stapling_file` have changed.
    /// - `off`: changed files are read on a reload.
    ///
    /// Effect: a changed certificate is used once its file is complete and it belongs to its key; until then an error
    /// is logged and the old one stays. Workers are replaced as on a reload, but the configuration isn't read. Names
    /// with variables are left to `ssl_certificate_cache`.
    ///
    /// Cost: a look at each file at this interval.
    ///
    /// ```nginx
    /// ssl_certificate_refresh 1h;
    /// ```
    "ssl_certificate_refresh" in P::PLACES.servers, ONE, default "off",
        scalar(interval) ssl_certificate_refresh: Option<u64> = None;
    /// Writes the keys of connections to a file, in the form of SSLKEYLOGFILE.
    ///
    /// Form: `ssl_key_log file`
    ///
    /// - `file`: a path, relative to the prefix (`-p`). If it doesn't exist, it is created for its owner alone.
    ///
    /// Effect: recorded connections can be read with it (in Wireshark, for example). `USR1` (`-s reopen`) opens the
    /// file again.
    ///
    /// Cost: a system call for each key, several for each handshake.
    ///
    /// Danger: whoever has the file can read all recorded connections. Use it for debugging, and delete the file.
    ///
    /// ```nginx
    /// ssl_key_log logs/keys.log;
    /// ```
    "ssl_key_log" in P::PLACES.servers, ONE, default none,
        scalar(key_log) ssl_key_log: Option<Rc<LogFile>> = None;
    /// Refuses TLS handshakes if it is `on`.
    ///
    /// Effect: in the default server it refuses clients that ask for a name that no server has; the server needs no
    /// certificate then.
    ///
    /// Danger: clients that send no name (SNI) are refused too.
    ///
    /// ```nginx http stream
    /// server {
    ///     listen 443 ssl default_server;
    ///     ssl_reject_handshake on;
    /// }
    /// ```
    ///
    /// ```nginx mail
    /// ssl_reject_handshake on;
    /// ```
    "ssl_reject_handshake" in P::PLACES.servers, Args::FLAG, default "off",
        scalar(flag) ssl_reject_handshake: bool = false;
    /// Sets an option of TLS with the words of OpenSSL's configuration.
    ///
    /// Form: `ssl_conf_command name value`
    ///
    /// - `name`: `Options`, `Ciphersuites`, `CipherString`, `Groups`, `Curves`, `MinProtocol`, `MaxProtocol`,
    ///   `Certificate` or `PrivateKey`; others are errors.
    /// - `value`: the option's value.
    ///
    /// Effect: it overrides the directive for the same thing, such as `ssl_ciphers` for `CipherString`. It may be
    /// repeated.
    ///
    /// ```nginx
    /// ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
    /// ```
    "ssl_conf_command" in P::PLACES.servers, Args::exactly(2), default none,
        list(conf_command) ssl_conf_command: (String, String);
    /// Asks clients for certificates.
    ///
    /// Form: `ssl_verify_client on | optional | optional_no_ca | off`
    ///
    /// - `on`: a client without a valid certificate gets status 400; in `mail` an error message, and the connection
    ///   ends.
    /// - `optional`: a certificate isn't needed, but one that is sent has to be valid.
    /// - `optional_no_ca`: any certificate is accepted; who signed it isn't checked. `$ssl_client_verify` shows the
    ///   result.
    /// - `off`: clients aren't asked.
    ///
    /// Effect: `on` and `optional` need `ssl_client_certificate` or `ssl_trusted_certificate`. `$ssl_client_verify`,
    /// `$ssl_client_s_dn` and others describe the certificate.
    ///
    /// Cost: a signature and a chain of certificates are checked in each full handshake.
    ///
    /// Danger: with `optional` and `optional_no_ca` the configuration or the application has to look at
    /// `$ssl_client_verify`: without that everybody is let in.
    ///
    /// ```nginx
    /// ssl_client_certificate ca.crt;
    /// ssl_verify_client on;
    /// ```
    "ssl_verify_client" in P::PLACES.servers, ONE, default "off",
        scalar(one_of(VERIFY)) ssl_verify_client: VerifyClient = VerifyClient::Off;
    /// Limits the number of intermediate certificates between the client's and the trusted one.
    ///
    /// Form: `ssl_verify_depth number`
    ///
    /// - `number`: how many intermediate certificates may be in the chain.
    ///
    /// Effect: a longer chain is invalid for `ssl_verify_client`.
    ///
    /// ```nginx
    /// ssl_verify_depth 2;
    /// ```
    "ssl_verify_depth" in P::PLACES.servers, ONE, default "1",
        scalar(clamped) ssl_verify_depth: u32 = 1;
    /// Names the file with the certificates of authorities that clients' certificates are checked with, and whose names
    /// clients are told.
    ///
    /// Form: `ssl_client_certificate file`
    ///
    /// - `file`: certificates in PEM, relative to the folder of the configuration file.
    ///
    /// Effect: clients use the names to choose a certificate. It is read at the start and on a reload.
    ///
    /// Cost: the names are sent in each full handshake; with a long list use `ssl_trusted_certificate`.
    ///
    /// ```nginx
    /// ssl_client_certificate ca.crt;
    /// ssl_verify_client on;
    /// ```
    "ssl_client_certificate" in P::PLACES.servers, ONE, default none,
        scalar(named) ssl_client_certificate: Named = Named::default();
    /// Names the file with the certificates of authorities that clients' certificates and OCSP responses are checked
    /// with; clients aren't told their names.
    ///
    /// Form: `ssl_trusted_certificate file`
    ///
    /// - `file`: certificates in PEM, relative to the folder of the configuration file.
    ///
    /// Effect: they are trusted beside those of `ssl_client_certificate`. It is read at the start and on a reload.
    ///
    /// ```nginx
    /// ssl_trusted_certificate ca.crt;
    /// ssl_verify_client on;
    /// ```
    "ssl_trusted_certificate" in P::PLACES.servers, ONE, default none,
        scalar(named) ssl_trusted_certificate: Named = Named::default();
    /// Names the file with lists of revoked certificates for `ssl_verify_client`.
    ///
    /// Form: `ssl_crl file`
    ///
    /// - `file`: lists in PEM, relative to the folder of the configuration file.
    ///
    /// Effect: a client's certificate that is listed is invalid. The file is read at the start and on a reload.
    ///
    /// Danger: a new list needs a reload.
    ///
    /// ```nginx
    /// ssl_crl revoked.pem;
    /// ```
    "ssl_crl" in P::PLACES.servers, ONE, default none,
        scalar(named) ssl_crl: Named = Named::default();
    /// Asks OCSP responders for the status of clients' certificates.
    ///
    /// Form: `ssl_ocsp on | leaf | off`
    ///
    /// - `on`: for the whole chain.
    /// - `leaf`: for the client's own certificate only.
    /// - `off`: responders aren't asked.
    ///
    /// Effect: a revoked certificate is invalid. It needs `ssl_verify_client on` or `optional`, and a `resolver` if the
    /// responder has a host name.
    ///
    /// Cost: a handshake waits for the responder, unless `ssl_ocsp_cache` has its response.
    ///
    /// ```nginx
    /// ssl_client_certificate ca.crt;
    /// ssl_verify_client on;
    /// ssl_ocsp on;
    /// ssl_ocsp_cache shared:ocsp:1m;
    /// resolver 127.0.0.1;
    /// ```
    "ssl_ocsp" in P::PLACES.servers, ONE, default "off",
        scalar(one_of(OCSP)) ssl_ocsp: Ocsp = Ocsp::Off;
    /// Sets the URL of the OCSP responder for clients' certificates.
    ///
    /// Form: `ssl_ocsp_responder url`
    ///
    /// - `url`: `http://...`; without this directive, the one that each certificate names is asked.
    ///
    /// Effect: it holds for all certificates that `ssl_ocsp` asks about.
    ///
    /// ```nginx
    /// ssl_ocsp_responder http://127.0.0.1:8888/;
    /// ```
    "ssl_ocsp_responder" in P::PLACES.servers, ONE, default none,
        scalar(string) ssl_ocsp_responder: String = String::new();
    /// Keeps what OCSP responders said about clients' certificates.
    ///
    /// Form: `ssl_ocsp_cache off | shared:name:size`
    ///
    /// - `shared:name:size`: in a zone of shared memory with this name, for all workers. Servers may share a zone.
    /// - `off`: nothing is kept.
    ///
    /// Effect: a certificate's status is asked for once until the response expires.
    ///
    /// Cost: the zone's memory.
    ///
    /// Danger: a certificate that is revoked stays valid until the response in the cache expires.
    ///
    /// ```nginx
    /// ssl_ocsp_cache shared:ocsp:1m;
    /// ```
    "ssl_ocsp_cache" in P::PLACES.servers, ONE, default "off",
        scalar(ocsp_cache::<P>) ssl_ocsp_cache: Option<Rc<SharedZone>> = None;
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

/// Reads `…ssl_key_log`.
pub(crate) fn key_log(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<LogFile>>> {
    let path = full_path(loader, &d.arg(0).text);
    loader.places.note(engine::log::FILE, buf::text::path(&path), d.span());
    Ok(Some(loader.store.entry::<LogFiles>().get_private(&path)))
}

/// What writes keys to a file.
pub(crate) fn key_sink(file: &Rc<LogFile>) -> KeySink {
    let file = file.clone();
    KeySink(Rc::new(move |lines| file.write(lines.as_bytes())))
}

/// The cache's name and size, as the last word that names a shared one has it.
fn session_cache<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Cache>> {
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
                let owner = Owner { module: P::tables().ssl.module(), layout: super::cache::LAYOUT };
                let zone = zones::declare(loader, word, name.as_bytes(), size, owner)?;
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

fn ocsp_cache<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<SharedZone>>> {
    let word = d.arg(0);
    if *word == "off" {
        return Ok(None);
    }
    let (name, size) = shared_cache(word, "OCSP cache")?;
    let owner = Owner { module: P::tables().ssl_ocsp.module(), layout: crate::ocsp::CACHE_LAYOUT };
    zones::declare(loader, word, name.as_bytes(), size, owner).map(Some)
}
