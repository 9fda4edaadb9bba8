//! TLS with clients: `ssl_*`. The directives are in `conf`, the variables in `variables`; this file makes of a server's
//! directives what accepts its connections.
//!
//! What differs from nginx: TLS 1.2 and 1.3 only, with the ciphers that [`tls::ciphers`] has; the settings of the server
//! whose name the client gives hold from the first byte on, protocols and ciphers included.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ::conf::{Error, Loader, Registry, Result, Set, Span};
use engine::log::Log;
use tls::{Authorities, ClientAuth, Identity, LocalCache, Server, ServerSettings, SessionCache, TicketKeys, Trust};

use self::values::{CertificateCache, Commands, File, at_file, full_name, load};
use crate::modules::Module;
use crate::ocsp::{Names, Stapler, StatusCheck};
use crate::vars::Setup;
use crate::{Proto, Session};

mod cache;
pub mod conf;
mod late;
mod objects;
mod ocsp;
mod refresh;
mod servers;
mod staple;
pub mod values;
pub mod variables;

use self::cache::ZoneCache;
use self::conf::Cache;
pub use self::conf::{SslConf, VerifyClient};
pub use self::late::LateFile;
pub use self::objects::reading_once;
use self::refresh::{Pair, Watch};
pub use self::servers::{Servers, Watched};
use self::staple::Stapling;

/// The module.
pub struct Ssl;

impl<P: Proto> Module<P> for Ssl {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SslConf<P>>();
    }

    fn variables(&self, setup: &mut Setup<P>) {
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

/// Compiles what a server's directives say with variables: before variables are joined to their names.
pub fn compile<P: Proto>(set: &Set, loader: &mut Loader<'_>) -> Result<()> {
    let conf = set.get::<SslConf<P>>();
    // What has no key is an error that comes later, and first.
    let pairs = conf.ssl_certificate.iter().zip(conf.ssl_certificate_key.iter());
    for (certificate, key) in pairs.filter(|_| conf.ssl_certificate.len() <= conf.ssl_certificate_key.len()) {
        certificate.file::<P>(loader)?;
        key.file::<P>(loader)?;
    }
    Ok(())
}

/// Makes what accepts a server's connections; `None` if the server has no certificate. `names` says how names of responders
/// are looked up, `alpn` which protocols are offered.
fn server<P: Proto>(
    conf: &SslConf<P>,
    names: &Names,
    alpn: &[&[u8]],
    loader: &mut Loader<'_>,
) -> Result<Option<ServerTls>> {
    if conf.ssl_certificate.is_empty() && !conf.ssl_reject_handshake {
        return Ok(None);
    }
    // In nginx's order: of several faults the same one is told first.
    let mut pairs = pairs(conf, loader)?;
    tls::ciphers::tls12(&conf.ssl_ciphers).map_err(|error| Error::new(error.0))?;
    let client_auth = client_auth(conf, loader)?;
    let status = ocsp::status(conf, names)?;
    if let Some(path) = conf.ssl_dhparam.path(loader) {
        tls::check_dh_parameters(&path).map_err(|error| conf.ssl_dhparam.error(error))?;
    }
    tls::groups(&conf.ssl_ecdh_curve).map_err(|error| Error::new(error.0))?;
    let ticket_keys = tickets(conf, loader)?;
    let stapling = Stapling::of(conf, names, loader)?;
    let commands = Commands::read(&conf.ssl_conf_command, loader)?;
    if commands.names_identity() {
        let named = pairs.first().map(|(certificate, key, _)| (certificate.clone(), key.clone()));
        let (certificate, key) = commands.identity(named, &conf.ssl_password_file)?;
        pairs = vec![(certificate, key, None)];
    }
    warn_of_ech(conf, loader);
    let mut dynamic = Vec::new();
    let mut loaded = Vec::new();
    for (certificate, key, places) in pairs {
        let (File::Fixed(certificate), File::Fixed(key)) = (&certificate, &key) else {
            dynamic.push((certificate, key));
            continue;
        };
        let mut warn = |why: String| loader.warnings.push(Error::new(why));
        let pair = Pair::load(certificate, key, &stapling, &conf.ssl_password_file, &mut warn);
        loaded.push(pair.map_err(|error| at_file(error, places))?);
    }
    let settings = ServerSettings {
        identities: loaded.iter().map(|pair| pair.identity().clone()).collect(),
        named: named(conf),
        protocols: commands.protocols(conf.ssl_protocols),
        ciphers: commands.ciphers.unwrap_or_else(|| conf.ssl_ciphers.clone()),
        ciphersuites: commands.ciphersuites,
        curves: commands.groups.unwrap_or_else(|| conf.ssl_ecdh_curve.clone()),
        prefer_server: commands.prefer_server.unwrap_or(conf.ssl_prefer_server_ciphers),
        buffer_size: conf.ssl_buffer_size,
        alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        cache: cache(conf),
        tickets: commands.tickets.unwrap_or(conf.ssl_session_tickets).then_some(ticket_keys),
        timeout_s: u32::try_from(conf.ssl_session_timeout).unwrap_or(u32::MAX),
        early_data: conf.ssl_early_data,
        compression: conf.ssl_certificate_compression,
        client_auth,
        key_log: conf.ssl_key_log.as_ref().map(self::conf::key_sink),
    };
    Ok(Some(ServerTls {
        server: Server::new(&settings).map_err(|error| Error::new(error.0))?,
        reject: conf.ssl_reject_handshake,
        status,
        staplers: RefCell::new(loaded.iter().filter_map(Pair::stapler).collect()),
        dynamic,
        kept: CertificateCache::new(conf.ssl_certificate_cache),
        passwords: conf.ssl_password_file.clone(),
        prefix: loader.env.conf_prefix.clone(),
        watch: conf
            .ssl_certificate_refresh
            .map(|ms| Watch::new(ms, loaded, stapling, conf.ssl_password_file.clone(), objects::of(loader))),
    }))
}

/// A certificate with its key, and where the two are named.
type NamedPair = (File, File, Option<(Span, Span)>);

/// Each certificate with its key. All that can be read of them is read here, before anything else is.
fn pairs<P: Proto>(conf: &SslConf<P>, loader: &mut Loader<'_>) -> Result<Vec<NamedPair>> {
    let (certificates, keys) = (&conf.ssl_certificate, &conf.ssl_certificate_key);
    if let Some(certificate) = certificates.get(keys.len()) {
        let message = format!("no \"ssl_certificate_key\" is defined for certificate \"{}\"", certificate.text);
        return Err(Error::place(certificate.place, message));
    }
    let mut pairs = Vec::with_capacity(certificates.len());
    for (certificate, key) in certificates.iter().zip(keys.iter()) {
        let places = Some((certificate.place, key.place));
        let pair = (certificate.file::<P>(loader)?, key.file::<P>(loader)?, places);
        if let (File::Fixed(certificate), File::Fixed(key), places) = &pair {
            load(certificate, key, &conf.ssl_password_file).map_err(|error| at_file(error, *places))?;
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

fn warn_of_ech<P: Proto>(conf: &SslConf<P>, loader: &mut Loader<'_>) {
    if let Some(place) = conf.ssl_ech_file.first().and_then(|file| file.place) {
        let message = "\"ssl_ech_file\" is not supported on this platform, ignored";
        loader.warnings.push(Error::place(place, message));
    }
}

/// The names of certificates with variables in them.
fn named<P: Proto>(conf: &SslConf<P>) -> Vec<String> {
    let all = conf.ssl_certificate.iter().map(|certificate| &certificate.text);
    all.filter(|name| name.contains('$')).cloned().collect()
}

fn cache<P: Proto>(conf: &SslConf<P>) -> Option<Arc<dyn SessionCache>> {
    Some(match conf.ssl_session_cache.as_ref()? {
        Cache::Shared(zone) => Arc::new(ZoneCache::new(zone.clone())),
        Cache::Builtin(size) => Arc::new(LocalCache::new(*size)),
    })
}

/// How clients are asked for certificates.
fn client_auth<P: Proto>(conf: &SslConf<P>, loader: &Loader<'_>) -> Result<Option<ClientAuth>> {
    let verifies = conf.ssl_verify_client != VerifyClient::Off;
    let (told, trusted) = (&conf.ssl_client_certificate, &conf.ssl_trusted_certificate);
    let is_nobody = told.text.is_empty() && trusted.text.is_empty();
    if verifies && is_nobody && conf.ssl_verify_client != VerifyClient::OptionalNoCa {
        return Err(Error::new("no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client"));
    }
    let mut trust = Trust::new(conf.ssl_verify_depth as usize);
    let mut authorities = Authorities::default();
    if let Some(path) = told.path(loader).filter(|_| verifies) {
        authorities = trust.add_file(&path).map_err(|error| told.error(error))?;
    }
    // These are read whether or not something needs them, as nginx does: what is wrong shows before it is needed.
    if let Some(path) = trusted.path(loader) {
        trust.add_file(&path).map_err(|error| trusted.error(error))?;
    }
    if let Some(path) = conf.ssl_crl.path(loader) {
        trust.add_lists(&path).map_err(|error| conf.ssl_crl.error(error))?;
    }
    Ok(verifies.then(|| ClientAuth { trust: Arc::new(trust), authorities }))
}

/// The keys of tickets, read whether or not there are tickets.
fn tickets<P: Proto>(conf: &SslConf<P>, loader: &Loader<'_>) -> Result<TicketKeys> {
    let mut keys = TicketKeys::random();
    for file in conf.ssl_session_ticket_key.iter() {
        let name = full_name(&loader.env.conf_prefix, &file.text);
        let contents = match std::fs::read(&name) {
            // It has no size that would do.
            Err(_) if std::path::Path::new(&name).is_dir() => Vec::new(),
            contents => contents.map_err(|error| {
                file.error(tls::Error::new(format!("open() \"{name}\" failed{}", engine::log::Errno(&error))))
            })?,
        };
        keys.add_file(&name, contents).map_err(|error| file.error(error))?;
    }
    Ok(keys)
}

impl ServerTls {
    /// Fetches OCSP responses for certificates that handshakes have used, in the background, where they are due.
    pub(crate) fn fetch_staples(&self, log: &Log) {
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
    pub fn identity<S: Session>(&self, session: &mut S) -> tls::Result<Option<Identity>> {
        for (certificate, key) in &self.dynamic {
            let certificate = certificate.name(session, &self.prefix);
            let key = key.name(session, &self.prefix);
            if certificate.is_empty() {
                continue;
            }
            return self.kept.load(&certificate, &key, &self.passwords).map(Some);
        }
        Ok(None)
    }
}
