//! TLS to backends: the directives `…_ssl_*` of the protocols that have them, under their prefixes.

use std::rc::Rc;
use std::sync::Arc;

use conf::values::{clamped, flag, string};
use conf::{Args, Directive, Error, Loader, Result};
use engine::log::{Errno, Level, LogFile};
use expr::vars::Template;
use tls::{Client, ClientSettings, ConnectError, HandshakeError, Identity, Reason, Trust};

use crate::front::ssl::LateFile;
use crate::front::ssl::conf::{key_log, key_sink};
use crate::front::ssl::values::{
    CacheLimits, CertificateCache, Commands, DEFAULT_PROTOCOLS, File, Named, at_file, certificate_cache, conf_command,
    load, named, password_file, protocols,
};
use crate::vars::{self, template};
use crate::{Proto, Session};

const ONE: Args = Args::exactly(1);

conf::table! {
    /// What protocols over TLS can be told.
    pub groups UpstreamSslConf of P: Proto, raw UpstreamSslRaw;

    group all {
        /// Resumes TLS sessions with backends if it is `on`.
        ///
        /// Effect: a new connection to a backend that it has spoken to before has a short handshake, without
        /// certificates.
        ///
        /// Cost: memory for sessions in each worker.
        ///
        /// ```nginx
        /// {}ssl_session_reuse off;
        /// ```
        "ssl_session_reuse" in P::PLACES.everywhere, Args::FLAG, default "on",
            scalar(flag) ssl_session_reuse: bool = true;
        /// Sets the versions of TLS for connections to backends.
        ///
        /// Form: `{}ssl_protocols version ...`
        ///
        /// - `version`: `TLSv1.2` or `TLSv1.3`. `SSLv2`, `SSLv3`, `TLSv1` and `TLSv1.1` are unsupported and ignored
        ///   with a warning.
        ///
        /// Effect: the handshake with a backend that has none of them fails; the request is passed to the next server,
        /// or answered with 502.
        ///
        /// ```nginx
        /// {}ssl_protocols TLSv1.3;
        /// ```
        "ssl_protocols" in P::PLACES.everywhere, Args::at_least(1), default "TLSv1.2 TLSv1.3",
            set(|raw: &mut UpstreamSslRaw, l: &mut Loader<'_>, d: &Directive| protocols(&mut raw.ssl_protocols, l, d))
            ssl_protocols: u32 = DEFAULT_PROTOCOLS;
        /// Sets the ciphers of TLS 1.2 for connections to backends.
        ///
        /// Form: `{}ssl_ciphers list`
        ///
        /// - `list`: a list in OpenSSL's language. ECDHE with AES-GCM or ChaCha20 is supported; other ciphers are
        ///   ignored.
        ///
        /// Effect: these ciphers are offered, in this order. Those of TLS 1.3 are set with `{}ssl_conf_command
        /// Ciphersuites`.
        ///
        /// ```nginx
        /// {}ssl_ciphers HIGH:!aNULL;
        /// ```
        "ssl_ciphers" in P::PLACES.everywhere, ONE, default "DEFAULT",
            scalar(string) ssl_ciphers: String = "DEFAULT".to_owned();
        /// Sets the name that a backend's certificate is checked for, and that is sent to the backend with
        /// `{}ssl_server_name`.
        ///
        /// Form: `{}ssl_name name`
        ///
        /// - `name`: a text with or without variables; a port at its end is removed.
        ///
        /// Effect: it is used by `{}ssl_verify` and `{}ssl_server_name`; without these it does nothing. An idle
        /// connection with another name isn't used again.
        ///
        /// Danger: with a group of servers the default is the name of the group, which no certificate contains.
        ///
        /// ```nginx
        /// {}ssl_name backend.example.com;
        /// ```
        "ssl_name" in P::PLACES.everywhere, ONE, default computed("the host in `{}pass`"),
            scalar(template::<P>) ssl_name: Option<Rc<Template>> = None;
        /// Sends the backend the name that it is called by (SNI, `{}ssl_name`) if it is `on`.
        ///
        /// Effect: a backend with several certificates can choose the right one.
        ///
        /// Danger: the name is sent unencrypted.
        ///
        /// ```nginx
        /// {}ssl_server_name on;
        /// ```
        "ssl_server_name" in P::PLACES.everywhere, Args::FLAG, default "off",
            scalar(flag) ssl_server_name: bool = false;
        /// Checks certificates of backends if it is `on`.
        ///
        /// Effect: the certificate has to be signed by one of `{}ssl_trusted_certificate`, valid today, not revoked
        /// (`{}ssl_crl`), and contain the name `{}ssl_name`. If it doesn't, the error log says why, and the request is
        /// passed to the next server or answered with 502.
        ///
        /// Cost: signatures are checked in each full handshake.
        ///
        /// Danger: with `off`, TLS protects against listeners only: whoever can redirect connections can answer in the
        /// backend's place.
        ///
        /// ```nginx
        /// {}ssl_verify on;
        /// {}ssl_trusted_certificate ca.crt;
        /// {}ssl_name backend.example.com;
        /// ```
        "ssl_verify" in P::PLACES.everywhere, Args::FLAG, default "off",
            scalar(flag) ssl_verify: bool = false;
        /// Limits the number of intermediate certificates between the backend's and the trusted one.
        ///
        /// Form: `{}ssl_verify_depth number`
        ///
        /// - `number`: how many intermediate certificates may be in the chain.
        ///
        /// Effect: a longer chain is refused by `{}ssl_verify`.
        ///
        /// ```nginx
        /// {}ssl_verify_depth 2;
        /// ```
        "ssl_verify_depth" in P::PLACES.everywhere, ONE, default "1",
            scalar(clamped) ssl_verify_depth: u32 = 1;
        /// Names the file with the certificates of authorities that `{}ssl_verify` trusts.
        ///
        /// Form: `{}ssl_trusted_certificate file`
        ///
        /// - `file`: certificates in PEM, relative to the folder of the configuration file.
        ///
        /// Effect: it is read at the start and on a reload, and has to be set where `{}ssl_verify` is on: the system's
        /// authorities aren't used by themselves.
        ///
        /// ```nginx
        /// {}ssl_verify on;
        /// {}ssl_trusted_certificate ca.crt;
        /// ```
        "ssl_trusted_certificate" in P::PLACES.everywhere, ONE, default none,
            scalar(named) ssl_trusted_certificate: Named = Named::default();
        /// Names the file with lists of revoked certificates for `{}ssl_verify`.
        ///
        /// Form: `{}ssl_crl file`
        ///
        /// - `file`: lists in PEM, relative to the folder of the configuration file.
        ///
        /// Effect: a backend with a listed certificate is refused. The file is read at the start and on a reload.
        ///
        /// Danger: a new list needs a reload.
        ///
        /// ```nginx
        /// {}ssl_crl revoked.pem;
        /// ```
        "ssl_crl" in P::PLACES.everywhere, ONE, default none,
            scalar(named) ssl_crl: Named = Named::default();
        /// Names the file with the certificate that backends are shown if they ask for one.
        ///
        /// Form: `{}ssl_certificate file`
        ///
        /// - `file`: a certificate in PEM, relative to the folder of the configuration file; also `data:` with the
        ///   certificate itself. With variables it is loaded for each connection; an empty value is no certificate.
        ///
        /// Effect: backends that check clients accept the connection. `{}ssl_certificate_key` names its key.
        ///
        /// Cost: with variables, the file is read for each connection, unless `{}ssl_certificate_cache` keeps it.
        ///
        /// ```nginx
        /// {}ssl_certificate backend.crt;
        /// {}ssl_certificate_key backend.key;
        /// ```
        "ssl_certificate" in P::PLACES.everywhere, ONE, default none,
            scalar(own::<P>) ssl_certificate: Option<LateFile> = None;
        /// Names the file with the private key of `{}ssl_certificate`.
        ///
        /// Form: `{}ssl_certificate_key file`
        ///
        /// - `file`: a key in PEM, relative to the folder of the configuration file; also `data:` with the key itself.
        ///   It may contain variables.
        ///
        /// Effect: without variables it is read at the start and on a reload, with the rights of the master.
        ///
        /// Danger: a key whose name contains variables has to be readable by workers.
        ///
        /// ```nginx
        /// {}ssl_certificate backend.crt;
        /// {}ssl_certificate_key backend.key;
        /// ```
        "ssl_certificate_key" in P::PLACES.everywhere, ONE, default none,
            scalar(own::<P>) ssl_certificate_key: Option<LateFile> = None;
        /// Keeps certificates whose names contain variables in the memory of workers.
        ///
        /// Form: `{}ssl_certificate_cache off | max=number [inactive=time] [valid=time]`
        ///
        /// - `max=number`: how many files are kept; a certificate and its key are two.
        /// - `inactive=time`: one that hasn't been used for this time is dropped; the default is 10s.
        /// - `valid=time`: how long one is used before its file is read again; the default is 60s.
        /// - `off`: none are kept.
        ///
        /// Effect: a certificate of `{}ssl_certificate` and its key aren't read for each connection. An encrypted key
        /// isn't kept.
        ///
        /// Cost: memory in each worker for each certificate.
        ///
        /// Danger: a replaced file is used after `valid` only.
        ///
        /// ```nginx
        /// {}ssl_certificate_cache max=100 inactive=1m valid=5m;
        /// ```
        "ssl_certificate_cache" in P::PLACES.everywhere, Args::between(1, 3), default "off",
            scalar(certificate_cache) ssl_certificate_cache: Option<CacheLimits> = None;
        /// Names the file with passwords for encrypted keys.
        ///
        /// Form: `{}ssl_password_file file`
        ///
        /// - `file`: one password in each line, relative to the folder of the configuration file.
        ///
        /// Effect: they are tried in this order when `{}ssl_certificate_key` is read.
        ///
        /// Danger: whoever can read both files has the key.
        ///
        /// ```nginx
        /// {}ssl_certificate backend.crt;
        /// {}ssl_certificate_key backend.key;
        /// {}ssl_password_file passwords;
        /// ```
        "ssl_password_file" in P::PLACES.everywhere, ONE, default none,
            scalar(password_file) ssl_password_file: Rc<[Vec<u8>]> = Rc::new([]);
        /// Sets an option of TLS to backends with the words of OpenSSL's configuration.
        ///
        /// Form: `{}ssl_conf_command name value`
        ///
        /// - `name`: `Options`, `Ciphersuites`, `CipherString`, `Groups`, `Curves`, `MinProtocol`, `MaxProtocol`,
        ///   `Certificate` or `PrivateKey`; others are errors.
        /// - `value`: the option's value.
        ///
        /// Effect: it overrides the directive for the same thing, such as `{}ssl_ciphers` for `CipherString`. It may be
        /// repeated.
        ///
        /// ```nginx
        /// {}ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
        /// ```
        "ssl_conf_command" in P::PLACES.everywhere, Args::exactly(2), default none,
            list(conf_command) ssl_conf_command: (String, String);
        /// Writes the keys of connections to backends to a file, in the form of SSLKEYLOGFILE.
        ///
        /// Form: `{}ssl_key_log file`
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
        /// {}ssl_key_log logs/backend-keys.log;
        /// ```
        "ssl_key_log" in P::PLACES.everywhere, ONE, default none,
            scalar(key_log) ssl_key_log: Option<Rc<LogFile>> = None;
    }
}

fn own<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<LateFile>> {
    if d.arg(0).text.is_empty() {
        return Ok(None);
    }
    let file = LateFile::of(d)?;
    // Variables are looked up even if no location inherits it, as in nginx.
    file.file::<P>(loader)?;
    Ok(Some(file))
}

/// How a location's backends are spoken to over TLS.
pub struct UpstreamTls {
    client: Client,
    name: Option<Rc<Template>>,
    /// The own certificate and its key, where variables name them.
    dynamic: Option<(File, File)>,
    kept: CertificateCache,
    passwords: Rc<[Vec<u8>]>,
    prefix: std::path::PathBuf,
}

/// Makes it; `prefix` is that of the directives, for messages.
pub fn client<P: Proto>(
    conf: &UpstreamSslConf<P>,
    prefix: &str,
    alpn: &[&[u8]],
    loader: &mut Loader<'_>,
) -> Result<UpstreamTls> {
    let commands = Commands::read(&conf.ssl_conf_command, loader)?;
    let mut identity = None;
    let mut dynamic = None;
    if commands.names_identity() {
        let named = match (&conf.ssl_certificate, &conf.ssl_certificate_key) {
            (Some(certificate), Some(key)) => Some((certificate.file::<P>(loader)?, key.file::<P>(loader)?)),
            _ => None,
        };
        match commands.identity(named, &conf.ssl_password_file)? {
            (File::Fixed(certificate), File::Fixed(key)) => {
                identity = Some(load(&certificate, &key, &conf.ssl_password_file)?);
            }
            pair => dynamic = Some(pair),
        }
    } else if let Some(certificate) = &conf.ssl_certificate {
        let Some(key) = &conf.ssl_certificate_key else {
            let shown = &certificate.text;
            let message = format!("no \"{prefix}ssl_certificate_key\" is defined for certificate \"{shown}\"");
            return Err(Error::place(certificate.place, message));
        };
        let places = Some((certificate.place, key.place));
        match (certificate.file::<P>(loader)?, key.file::<P>(loader)?) {
            (File::Fixed(certificate), File::Fixed(key)) => {
                let loaded = load(&certificate, &key, &conf.ssl_password_file);
                identity = Some(loaded.map_err(|error| at_file(error, places))?);
            }
            pair => dynamic = Some(pair),
        }
    }
    let settings = ClientSettings {
        protocols: commands.protocols(conf.ssl_protocols),
        ciphers: commands.ciphers.unwrap_or_else(|| conf.ssl_ciphers.clone()),
        ciphersuites: commands.ciphersuites,
        curves: commands.groups.unwrap_or_else(|| "auto".to_owned()),
        identity,
        server_name: conf.ssl_server_name,
        reuse: conf.ssl_session_reuse,
        alpn: alpn.iter().map(|protocol| protocol.to_vec()).collect(),
        trust: trust(conf, prefix, loader)?.map(Arc::new),
        key_log: conf.ssl_key_log.as_ref().map(key_sink),
    };
    Ok(UpstreamTls {
        client: Client::new(&settings).map_err(|error| Error::new(error.0))?,
        name: conf.ssl_name.clone(),
        dynamic,
        kept: CertificateCache::new(conf.ssl_certificate_cache),
        passwords: conf.ssl_password_file.clone(),
        prefix: loader.env.conf_prefix.clone(),
    })
}

fn trust<P: Proto>(conf: &UpstreamSslConf<P>, prefix: &str, loader: &Loader<'_>) -> Result<Option<Trust>> {
    if !conf.ssl_verify {
        return Ok(None);
    }
    let (trusted, lists) = (&conf.ssl_trusted_certificate, &conf.ssl_crl);
    let Some(path) = trusted.path(loader) else {
        return Err(Error::new(format!("no {prefix}ssl_trusted_certificate for {prefix}ssl_verify")));
    };
    let mut trust = Trust::new(conf.ssl_verify_depth as usize);
    trust.add_file(&path).map_err(|error| trusted.error(error))?;
    if let Some(path) = lists.path(loader) {
        trust.add_lists(&path).map_err(|error| lists.error(error))?;
    }
    Ok(Some(trust))
}

/// How a handshake with a backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It took too long.
    TimedOut,
    /// The backend isn't to be spoken to.
    Error,
    /// The own certificate can't be loaded.
    OwnCertificate,
}

impl UpstreamTls {
    /// What variables make of name and certificate: a connection with others isn't for this request.
    pub fn label<S: Session>(&self, session: &mut S) -> Option<Box<str>> {
        let name = self.name.as_ref().filter(|template| template.is_const().is_none());
        if name.is_none() && self.dynamic.is_none() {
            return None;
        }
        let mut label = name.map(|template| vars::render(session, template)).unwrap_or_default();
        if let Some((certificate, key)) = &self.dynamic {
            for file in [certificate, key] {
                label.push(0);
                label.extend_from_slice(file.name(session, &self.prefix).as_bytes());
            }
        }
        Some(String::from_utf8_lossy(&label).into())
    }

    /// The handshake with the backend `host`, as the configuration names it, offering protocols of this connection alone if
    /// there are some. What went wrong is logged. The stream's timeouts bound it.
    pub async fn connect<S: Session>(
        &self,
        session: &mut S,
        stream: &rt::Stream,
        host: &[u8],
        alpn: Option<Vec<Vec<u8>>>,
    ) -> std::result::Result<(), Failure> {
        let name = self.host(session, host);
        let identity = self.identity(session).map_err(|error| {
            session.log_at(Level::Error, format_args!("{error} while SSL handshaking to upstream"));
            Failure::OwnCertificate
        })?;
        match tls::connect(stream, &self.client, &name, identity, alpn).await {
            Ok(()) => Ok(()),
            Err(error) => Err(log(session, &name, &error)),
        }
    }

    /// The name of the backend, without a port.
    fn host<S: Session>(&self, session: &mut S, host: &[u8]) -> String {
        let name = match &self.name {
            Some(template) => vars::render(session, template),
            None => host.to_vec(),
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        if let Some(rest) = name.strip_prefix('[') {
            return rest.split(']').next().unwrap_or_default().to_owned();
        }
        name.split(':').next().unwrap_or_default().to_owned()
    }

    fn identity<S: Session>(&self, session: &mut S) -> tls::Result<Option<Identity>> {
        let Some((certificate, key)) = &self.dynamic else { return Ok(None) };
        let certificate = certificate.name(session, &self.prefix);
        if certificate.is_empty() {
            return Ok(None);
        }
        let key = key.name(session, &self.prefix);
        self.kept.load(&certificate, &key, &self.passwords).map(Some)
    }
}

fn log<S: Session>(session: &S, name: &str, error: &ConnectError) -> Failure {
    const ACTION: &str = "while SSL handshaking to upstream";
    match error {
        ConnectError::Handshake(HandshakeError::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            session.log_at(Level::Error, format_args!("upstream timed out{} {ACTION}", engine::log::TIMED_OUT));
            return Failure::TimedOut;
        }
        ConnectError::Handshake(HandshakeError::Io(error)) => {
            session.log_at(Level::Error, format_args!("SSL_do_handshake() failed{} {ACTION}", Errno(error)));
        }
        ConnectError::Handshake(HandshakeError::Closed) => {
            session.log_at(Level::Error, format_args!("peer closed connection in SSL handshake {ACTION}"));
        }
        ConnectError::Handshake(HandshakeError::Tls(text)) => {
            session.log_at(Level::Error, format_args!("SSL_do_handshake() failed (SSL: {text}) {ACTION}"));
        }
        ConnectError::Untrusted(Reason(code, text)) => {
            session
                .log_at(Level::Error, format_args!("upstream SSL certificate verify error: ({code}:{text}) {ACTION}"));
        }
        ConnectError::WrongHost => {
            session.log_at(Level::Error, format_args!("upstream SSL certificate does not match \"{name}\" {ACTION}"));
        }
    }
    Failure::Error
}
