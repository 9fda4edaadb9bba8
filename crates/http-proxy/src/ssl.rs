//! TLS to backends: the directives `…_ssl_*` of the protocols that have them, under their prefixes.

use std::rc::Rc;
use std::sync::Arc;

use conf::values::{flag, number, string};
use conf::{Args, Directive, Error, Loader, Result};
use engine::log::{Errno, Level};
use expr::vars::Template;
use http::config::core::EVERYWHERE;
use http::config::late::LateFile;
use http::exchange::Target;
use http::request::Request;
use http::request::variables::template;
use http::ssl::values::{
    CacheLimits, CertificateCache, Commands, DEFAULT_PROTOCOLS, File, Named, at_file, certificate_cache, conf_command,
    load, named, password_file, protocols,
};
use tls::{Client, ClientSettings, ConnectError, HandshakeError, Identity, Reason, Trust};

const ONE: Args = Args::exactly(1);

conf::table! {
    /// What protocols over TLS can be told.
    pub groups UpstreamSslConf, raw UpstreamSslRaw;

    group all {
        /// Whether sessions with backends are resumed.
        "ssl_session_reuse" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) ssl_session_reuse: bool = true;
        /// Versions of TLS that backends are spoken to in. What is older than TLS 1.2 doesn't exist here, and is passed over
        /// with a warning.
        "ssl_protocols" in EVERYWHERE, Args::at_least(1), default "TLSv1.2 TLSv1.3",
            set(|raw: &mut UpstreamSslRaw, l: &mut Loader<'_>, d: &Directive| protocols(&mut raw.ssl_protocols, l, d))
            ssl_protocols: u32 = DEFAULT_PROTOCOLS;
        /// The ciphers of TLS 1.2, in OpenSSL's language.
        "ssl_ciphers" in EVERYWHERE, ONE, default "DEFAULT",
            scalar(string) ssl_ciphers: String = "DEFAULT".to_owned();
        /// The name that the backend's certificate has to have, and that it is told.
        "ssl_name" in EVERYWHERE, ONE, default computed("the host in `{}pass`"),
            scalar(template) ssl_name: Option<Rc<Template>> = None;
        /// Whether backends are told the name (SNI).
        "ssl_server_name" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) ssl_server_name: bool = false;
        /// Whether a backend's certificate has to be trusted and to have the right name.
        "ssl_verify" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) ssl_verify: bool = false;
        /// How many certificates may stand between the backend's and the trusted one.
        "ssl_verify_depth" in EVERYWHERE, ONE, default "1",
            scalar(number) ssl_verify_depth: u32 = 1;
        /// A file with certificates that vouch for backends.
        "ssl_trusted_certificate" in EVERYWHERE, ONE, default none,
            scalar(named) ssl_trusted_certificate: Named = Named::default();
        /// A file with lists of revoked certificates.
        "ssl_crl" in EVERYWHERE, ONE, default none,
            scalar(named) ssl_crl: Named = Named::default();
        /// A file with the own certificate; with variables it is loaded for each connection. An empty value is none.
        "ssl_certificate" in EVERYWHERE, ONE, default none,
            scalar(own) ssl_certificate: Option<LateFile> = None;
        /// A file with the key of the own certificate.
        "ssl_certificate_key" in EVERYWHERE, ONE, default none,
            scalar(own) ssl_certificate_key: Option<LateFile> = None;
        /// How certificates with variables in their names are kept, as `ssl_certificate_cache` has it.
        "ssl_certificate_cache" in EVERYWHERE, Args::between(1, 3), default "off",
            scalar(certificate_cache) ssl_certificate_cache: Option<CacheLimits> = None;
        /// A file with passwords for encrypted keys, one in each line.
        "ssl_password_file" in EVERYWHERE, ONE, default none,
            scalar(password_file) ssl_password_file: Rc<[Vec<u8>]> = Rc::new([]);
        /// Settings in OpenSSL's words, as `ssl_conf_command` has them.
        "ssl_conf_command" in EVERYWHERE, Args::exactly(2), default none,
            list(conf_command) ssl_conf_command: (String, String);
    }
}

fn own(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<LateFile>> {
    if d.arg(0).text.is_empty() {
        return Ok(None);
    }
    let file = LateFile::of(d)?;
    // Variables are looked up even if no location inherits it, as in nginx.
    file.file(loader)?;
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
pub fn client(conf: &UpstreamSslConf, prefix: &str, loader: &mut Loader<'_>) -> Result<UpstreamTls> {
    let commands = Commands::read(&conf.ssl_conf_command, loader)?;
    let mut identity = None;
    let mut dynamic = None;
    if commands.names_identity() {
        let named = match (&conf.ssl_certificate, &conf.ssl_certificate_key) {
            (Some(certificate), Some(key)) => Some((certificate.file(loader)?, key.file(loader)?)),
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
        match (certificate.file(loader)?, key.file(loader)?) {
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
        alpn: Vec::new(),
        trust: trust(conf, prefix, loader)?.map(Arc::new),
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

fn trust(conf: &UpstreamSslConf, prefix: &str, loader: &Loader<'_>) -> Result<Option<Trust>> {
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
    pub fn label(&self, r: &mut Request) -> Option<Box<str>> {
        let name = self.name.as_ref().filter(|template| template.is_const().is_none());
        if name.is_none() && self.dynamic.is_none() {
            return None;
        }
        let mut label = name.map(|template| r.render(template)).unwrap_or_default();
        if let Some((certificate, key)) = &self.dynamic {
            for file in [certificate, key] {
                label.push(0);
                label.extend_from_slice(file.name(r, &self.prefix).as_bytes());
            }
        }
        Some(String::from_utf8_lossy(&label).into())
    }

    /// The handshake with a backend. What went wrong is logged. The stream's timeouts bound it.
    pub async fn connect(
        &self,
        r: &mut Request,
        stream: &rt::Stream,
        target: &Target,
    ) -> std::result::Result<(), Failure> {
        let name = self.host(r, target);
        let identity = self.identity(r).map_err(|message| {
            r.log_error(format_args!("{message} while SSL handshaking to upstream"));
            Failure::OwnCertificate
        })?;
        match tls::connect(stream, &self.client, &name, identity).await {
            Ok(()) => Ok(()),
            Err(error) => Err(log(r, &name, &error)),
        }
    }

    /// The name of the backend, without a port.
    fn host(&self, r: &mut Request, target: &Target) -> String {
        let name = match &self.name {
            Some(template) => r.render(template),
            None => target.host.to_vec(),
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        if let Some(rest) = name.strip_prefix('[') {
            return rest.split(']').next().unwrap_or_default().to_owned();
        }
        name.split(':').next().unwrap_or_default().to_owned()
    }

    fn identity(&self, r: &mut Request) -> std::result::Result<Option<Identity>, String> {
        let Some((certificate, key)) = &self.dynamic else { return Ok(None) };
        let certificate = certificate.name(r, &self.prefix);
        if certificate.is_empty() {
            return Ok(None);
        }
        let key = key.name(r, &self.prefix);
        self.kept.load(&certificate, &key, &self.passwords).map(Some)
    }
}

fn log(r: &Request, name: &str, error: &ConnectError) -> Failure {
    const ACTION: &str = "while SSL handshaking to upstream";
    match error {
        ConnectError::Handshake(HandshakeError::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            r.log_error(format_args!("upstream timed out{} {ACTION}", engine::log::TIMED_OUT));
            return Failure::TimedOut;
        }
        ConnectError::Handshake(HandshakeError::Io(error)) => {
            r.log_error(format_args!("SSL_do_handshake() failed{} {ACTION}", Errno(error)));
        }
        ConnectError::Handshake(HandshakeError::Closed) => {
            r.log_error(format_args!("peer closed connection in SSL handshake {ACTION}"));
        }
        ConnectError::Handshake(HandshakeError::Tls(text)) => {
            r.log_error(format_args!("SSL_do_handshake() failed (SSL: {text}) {ACTION}"));
        }
        ConnectError::Untrusted(Reason(code, text)) => {
            r.log_error(format_args!("upstream SSL certificate verify error: ({code}:{text}) {ACTION}"));
        }
        ConnectError::WrongHost => {
            r.log_at(Level::Error, format_args!("upstream SSL certificate does not match \"{name}\" {ACTION}"));
        }
    }
    Failure::Error
}
