//! TLS with clients: `ssl_*`. The directives are in `conf`, the variables in `variables`; this file makes of a server's
//! directives what accepts its connections.
//!
//! What differs from nginx: TLS 1.2 and 1.3 only, with the ciphers that [`tls::ciphers`] has; the settings of the server
//! whose name the client gives hold from the first byte on, protocols and ciphers included.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ::conf::{Error, Loader, Registry, Result, Set};
use common::ocsp::{Stapler, StatusCheck};
use engine::log::Log;
use tls::{ClientAuth, Identity, KeySink, LocalCache, Server, ServerSettings, SessionCache, TicketKeys, Trust};

use super::HttpModule;
use crate::core::conf::CoreLocation;
use crate::core::request::Request;
use crate::core::ssl_values::{CertificateCache, Commands, File, full_name};
use crate::core::variables::Setup;

mod cache;
pub mod conf;
mod ocsp;
mod refresh;
mod staple;
mod variables;

use self::cache::ZoneCache;
use self::conf::Cache;
pub use self::conf::{SslConf, VerifyClient};
use self::refresh::{Pair, Watch};
use self::staple::Stapling;

/// The module.
pub struct Ssl;

impl HttpModule for Ssl {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SslConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        variables::define(setup);
    }
}

/// What accepts a server's connections.
pub struct ServerTls {
    /// The handshake's side of it.
    pub server: Server,
    /// Whether handshakes are refused.
    pub reject: bool,
    /// How the status of clients' certificates is found out, if it is.
    pub status: Option<StatusCheck>,
    /// What staples responses to certificates.
    staplers: RefCell<Vec<Rc<Stapler>>>,
    /// Certificates that are loaded for each connection.
    dynamic: Vec<(File, File)>,
    kept: CertificateCache,
    passwords: Rc<[Vec<u8>]>,
    prefix: std::path::PathBuf,
    /// The others, if they are to be looked at.
    watch: Option<Watch>,
}

/// Makes what accepts a server's connections; `None` if the server has no certificate. `core` is the configuration of the
/// server's own level, `http2` whether HTTP/2 is offered.
pub fn server(set: &Set, core: &CoreLocation, http2: bool, loader: &mut Loader<'_>) -> Result<Option<ServerTls>> {
    let conf = set.get::<SslConf>();
    let commands = Commands::read(&conf.ssl_conf_command, loader)?;
    let pairs = pairs(conf, &commands)?;
    if pairs.is_empty() && !conf.ssl_reject_handshake {
        return Ok(None);
    }
    let (fixed, dynamic): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|pair| matches!(pair, (File::Fixed(_), File::Fixed(_))));
    let stapling = Stapling::of(conf, core, loader)?;
    let mut loaded = Vec::new();
    for pair in &fixed {
        if let (File::Fixed(certificate), File::Fixed(key)) = pair {
            let mut warn = |why: String| loader.warnings.push(Error::new(why));
            loaded.push(Pair::load(certificate, key, &stapling, &conf.ssl_password_file, &mut warn)?);
        }
    }
    let settings = ServerSettings {
        identities: loaded.iter().map(|pair| pair.identity().clone()).collect(),
        protocols: commands.protocols(conf.ssl_protocols),
        ciphers: commands.ciphers.unwrap_or_else(|| conf.ssl_ciphers.clone()),
        ciphersuites: commands.ciphersuites,
        curves: commands.groups.unwrap_or_else(|| conf.ssl_ecdh_curve.clone()),
        prefer_server: commands.prefer_server.unwrap_or(conf.ssl_prefer_server_ciphers),
        buffer_size: conf.ssl_buffer_size,
        alpn: ALPN.iter().skip(usize::from(!http2)).map(|name| name.to_vec()).collect(),
        cache: cache(conf),
        tickets: commands.tickets.unwrap_or(conf.ssl_session_tickets).then(|| tickets(conf)).transpose()?,
        timeout_s: u32::try_from(conf.ssl_session_timeout).unwrap_or(u32::MAX),
        early_data: conf.ssl_early_data,
        compression: conf.ssl_certificate_compression,
        client_auth: client_auth(conf, loader)?,
        key_log: conf.ssl_key_log.clone().map(|file| KeySink(Rc::new(move |lines| file.write(lines.as_bytes())))),
    };
    Ok(Some(ServerTls {
        server: Server::new(&settings).map_err(|error| Error::new(error.0))?,
        reject: conf.ssl_reject_handshake,
        status: ocsp::status(conf, core)?,
        staplers: RefCell::new(loaded.iter().filter_map(Pair::stapler).collect()),
        dynamic,
        kept: CertificateCache::new(conf.ssl_certificate_cache),
        passwords: conf.ssl_password_file.clone(),
        prefix: loader.env.conf_prefix.clone(),
        watch: conf.ssl_certificate_refresh.map(|ms| Watch::new(ms, loaded, stapling, &conf.ssl_password_file)),
    }))
}

/// The protocols for ALPN; the first one only where it is wanted.
const ALPN: [&[u8]; 4] = [b"h2", b"http/1.1", b"http/1.0", b"http/0.9"];

/// Each certificate with its key.
fn pairs(conf: &SslConf, commands: &Commands) -> Result<Vec<(File, File)>> {
    let mut certificates = conf.ssl_certificate.to_vec();
    let mut keys = conf.ssl_certificate_key.to_vec();
    if let Some((certificate, key)) = &commands.identity {
        certificates = vec![File::Fixed(certificate.clone())];
        keys = vec![File::Fixed(key.clone())];
    }
    if let Some(certificate) = certificates.get(keys.len()) {
        let shown = match certificate {
            File::Fixed(name) => name.clone(),
            File::Variable(template) => format!("{template:?}"),
        };
        let message = format!("no \"ssl_certificate_key\" is defined for certificate \"{shown}\"");
        return Err(Error::new(message));
    }
    Ok(certificates.into_iter().zip(keys).collect())
}

fn cache(conf: &SslConf) -> Option<Arc<dyn SessionCache>> {
    Some(match conf.ssl_session_cache.as_ref()? {
        Cache::Shared(zone) => Arc::new(ZoneCache::new(zone.clone())),
        Cache::Builtin(size) => Arc::new(LocalCache::new(*size)),
    })
}

/// How clients are asked for certificates.
fn client_auth(conf: &SslConf, loader: &Loader<'_>) -> Result<Option<ClientAuth>> {
    if conf.ssl_verify_client == VerifyClient::Off {
        return Ok(None);
    }
    let (told, trusted) = (&conf.ssl_client_certificate, &conf.ssl_trusted_certificate);
    if told.is_empty() && trusted.is_empty() && conf.ssl_verify_client != VerifyClient::OptionalNoCa {
        return Err(Error::new("no ssl_client_certificate for ssl_verify_client"));
    }
    let mut trust = Trust::new(conf.ssl_verify_depth as usize);
    let path = |name: &str| full_name(&loader.env.conf_prefix, name);
    let failed = |error: tls::Error| Error::new(error.0);
    let mut authorities = Vec::new();
    if !told.is_empty() {
        authorities = trust.add_file(&path(told)).map_err(failed)?;
    }
    if !trusted.is_empty() {
        trust.add_file(&path(trusted)).map_err(failed)?;
    }
    if !conf.ssl_crl.is_empty() {
        trust.add_lists(&path(&conf.ssl_crl)).map_err(failed)?;
    }
    Ok(Some(ClientAuth { trust: Arc::new(trust), authorities }))
}

fn tickets(conf: &SslConf) -> Result<TicketKeys> {
    let mut keys = TicketKeys::random();
    for (name, contents) in conf.ssl_session_ticket_key.iter() {
        keys.add_file(name, contents.clone()).map_err(|error| Error::new(error.0))?;
    }
    Ok(keys)
}

impl ServerTls {
    /// Fetches OCSP responses for certificates that handshakes have used, in the background, where they are due.
    pub fn fetch_staples(&self, log: &Log) {
        self.staplers.borrow().iter().for_each(|stapler| stapler.fetch_if_due(log));
    }

    /// In how many milliseconds [`ServerTls::look`] is to be called, if ever.
    pub fn looks_in_ms(&self) -> Option<u64> {
        self.watch.as_ref().map(Watch::looks_in_ms)
    }

    /// Looks for renewed certificates, if it is time to; whether there are some.
    pub fn look(&self, log: &Log) -> bool {
        let renewed = self.watch.as_ref().and_then(|watch| watch.look(log));
        let Some((identities, staplers)) = renewed else { return false };
        self.server.renew(&identities);
        self.staplers.replace(staplers);
        true
    }

    /// Whether certificates depend on the connection.
    pub fn is_dynamic(&self) -> bool {
        !self.dynamic.is_empty()
    }

    /// The certificate for one connection, as variables say; `None` if they say nothing.
    pub fn identity(&self, r: &mut Request) -> std::result::Result<Option<Identity>, String> {
        for (certificate, key) in &self.dynamic {
            let certificate = certificate.name(r, &self.prefix);
            let key = key.name(r, &self.prefix);
            if certificate.is_empty() {
                continue;
            }
            return self.kept.load(&certificate, &key, &self.passwords).map(Some);
        }
        Ok(None)
    }
}
