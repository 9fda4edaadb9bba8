//! A server's side of TLS: its settings, and what the library makes of them.

use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{NamedGroup, ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion};

use crate::certs::Identity;
use crate::ciphers;
use crate::client_auth::{Asks, ClientAuth};
use crate::departed::Departed;
use crate::error::{Error, Result};
use crate::names;
use crate::notes::NotesKeys;
use crate::session::{Bound, LocalCache, SessionCache};
use crate::tickets::TicketKeys;
use crate::verify::Trust;

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

/// What directives say of a server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Certificates with their keys; the client's abilities choose among them. Empty: they come with each connection.
    pub identities: Vec<Identity>,
    /// What those that come with each connection are called in the configuration: sessions are bound to that, as they
    /// are to `identities`.
    pub named: Vec<String>,
    /// Versions.
    pub protocols: Protocols,
    /// The list of ciphers for TLS 1.2, in OpenSSL's language.
    pub ciphers: String,
    /// The suites of TLS 1.3 by name; `None`: all.
    pub ciphersuites: Option<String>,
    /// Groups by name, in order; `auto` for the default.
    pub curves: String,
    /// Whether the server's order of suites counts.
    pub prefer_server: bool,
    /// The most plaintext in a record, in bytes.
    pub buffer_size: usize,
    /// Protocols for ALPN, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
    /// Remembered sessions.
    pub cache: Option<Arc<dyn SessionCache>>,
    /// Tickets, if there are any.
    pub tickets: Option<TicketKeys>,
    /// How long sessions live, in seconds.
    pub timeout_s: u32,
    /// Whether early data is taken. It needs remembered sessions: without `cache` there are some in the process.
    pub early_data: bool,
    /// Whether certificates are compressed.
    pub compression: bool,
    /// How clients are asked for certificates, if they are.
    pub client_auth: Option<ClientAuth>,
    /// Who writes down the keys of connections, if somebody does.
    pub key_log: Option<KeySink>,
}

/// Takes lines with keys, in the form that is known as SSLKEYLOGFILE: who has them can read the connections.
#[derive(Clone)]
pub struct KeySink(pub Rc<dyn Fn(&str)>);

impl fmt::Debug for KeySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySink")
    }
}

/// A server that can be connected to.
#[derive(Debug)]
pub struct Server {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) buffer_size: usize,
    pub(crate) trust: Option<Arc<Trust>>,
    identities: Arc<Identities>,
    pub(crate) key_log: Option<KeySink>,
}

impl Server {
    /// Builds a server. Errors: lists that name nothing that exists.
    pub fn new(settings: &ServerSettings) -> Result<Server> {
        let ServerSettings { protocols, ciphers, ciphersuites, curves, .. } = settings;
        let provider = crypto(*protocols, ciphers, ciphersuites.as_deref(), curves)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&protocols.versions())
            .map_err(|error| Error::new(error.to_string()))?;
        let identities = Arc::new(Identities::new(&settings.identities));
        let verifier: Arc<dyn ClientCertVerifier> = match &settings.client_auth {
            Some(auth) => Arc::new(Asks::new(auth)),
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(identities.clone());
        config.ignore_client_order = settings.prefer_server;
        config.max_fragment_size = Some(settings.buffer_size.clamp(MIN_RECORD, MAX_RECORD) + RECORD_HEADER);
        config.alpn_protocols.clone_from(&settings.alpn);
        config.send_half_rtt_data = false;
        // A connection may go on in another process.
        config.enable_secret_extraction = true;
        if settings.key_log.is_some() {
            config.key_log = Arc::new(NotesKeys);
        }
        if !settings.compression {
            config.cert_compressors.clear();
        }
        let binding = binding(settings);
        let mut cache = settings.cache.clone();
        if settings.early_data {
            config.max_early_data_size = MAX_EARLY_DATA;
            cache.get_or_insert_with(|| Arc::new(LocalCache::new(EARLY_CACHE)));
        } else if let Some(tickets) = &settings.tickets {
            config.ticketer = tickets.ticketer(binding, settings.timeout_s);
        }
        // The library's default remembers some sessions.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Some(cache) = cache {
            config.session_storage = Arc::new(Bound { cache, binding, timeout_s: settings.timeout_s });
        }
        Ok(Server {
            config: Arc::new(config),
            buffer_size: settings.buffer_size.clamp(MIN_RECORD, MAX_RECORD),
            trust: settings.client_auth.as_ref().map(|auth| auth.trust.clone()),
            identities,
            key_log: settings.key_log.clone(),
        })
    }

    /// Who vouches for clients, if they are asked for certificates.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
    }

    /// Takes other certificates from now on, renewed ones. Sessions stay bound to those that the server began with.
    pub fn renew(&self, identities: &[Identity]) {
        *self.identities.0.write().unwrap_or_else(PoisonError::into_inner) = one_of_each_kind(identities);
    }

    /// Whether a connection that was made elsewhere could have been made with this server: version and suite are among
    /// its own, and it doesn't ask for certificates which the client wasn't asked for.
    pub fn would_accept(&self, departed: &Departed) -> bool {
        let suites = &self.config.crypto_provider().cipher_suites;
        suites
            .iter()
            .any(|suite| suite.suite() == departed.facts.suite && suite.version().version == departed.facts.version)
            && (self.trust.is_none() || departed.was_asked)
    }

    /// The configuration for a connection with a certificate of its own.
    pub(crate) fn config(&self, identity: Option<Identity>) -> Arc<ServerConfig> {
        let Some(identity) = identity else { return self.config.clone() };
        let mut config = (*self.config).clone();
        config.cert_resolver = Arc::new(Identities::new(&[identity]));
        Arc::new(config)
    }
}

/// The most early data of a connection, in bytes.
const MAX_EARLY_DATA: u32 = 16384;
/// The cache of sessions for early data where none is configured, in bytes.
const EARLY_CACHE: usize = 1 << 20;
const RECORD_HEADER: usize = 5;
const MIN_RECORD: usize = 64;
const MAX_RECORD: usize = 16384;

/// What sessions are bound to: servers with the same certificates and demands may resume each other's.
fn binding(settings: &ServerSettings) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for identity in &settings.identities {
        let leaf = identity.chain().first().map_or(&[][..], AsRef::as_ref);
        context.update(&(leaf.len() as u64).to_be_bytes());
        context.update(leaf);
    }
    for name in &settings.named {
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
    }
    if let Some(auth) = &settings.client_auth {
        context.update(b"client certificates");
        auth.trust.roots().chain(auth.authorities.iter()).for_each(|der| context.update(der));
    }
    let mut binding = [0; 16];
    binding.copy_from_slice(&context.finish().as_ref()[..16]);
    binding
}

/// Suites and groups as settings name them.
pub(crate) fn crypto(
    protocols: Protocols,
    tls12: &str,
    tls13: Option<&str>,
    curves: &str,
) -> Result<Arc<CryptoProvider>> {
    let mut suites: Vec<SupportedCipherSuite> = Vec::new();
    if protocols.tls13 {
        suites.extend(match tls13 {
            Some(list) => ciphers::tls13(list)?,
            None => ciphers::all_tls13(),
        });
    }
    let of_tls12 = ciphers::tls12(tls12)?;
    if protocols.tls12 {
        suites.extend(of_tls12);
    }
    let provider = CryptoProvider { cipher_suites: suites, kx_groups: groups(curves)?, ..provider::default_provider() };
    Ok(Arc::new(provider))
}

impl Protocols {
    pub(crate) fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let mut versions = Vec::new();
        versions.extend(self.tls13.then_some(&rustls::version::TLS13));
        versions.extend(self.tls12.then_some(&rustls::version::TLS12));
        versions
    }
}

/// The groups of a list such as `X25519:prime256v1`; those that are known but don't exist here are skipped.
pub fn groups(list: &str) -> Result<Vec<&'static dyn SupportedKxGroup>> {
    if list == "auto" {
        return Ok(provider::DEFAULT_KX_GROUPS.to_vec());
    }
    let failed = |why: &str| Error::new(format!("SSL_CTX_set1_curves_list(\"{list}\") failed{why}"));
    let unknown = |name: &str| {
        failed(&format!(" (SSL: error:0A080106:SSL routines::passed invalid argument:group '{name}' cannot be set)"))
    };
    let mut found = Vec::new();
    for name in list.split(':').filter(|name| !name.is_empty()) {
        let group = names::group_by_name(name.trim_start_matches(['?', '*'])).ok_or_else(|| unknown(name))?;
        found.extend(supported(group));
    }
    if found.is_empty() { Err(failed("")) } else { Ok(found) }
}

fn supported(group: NamedGroup) -> Option<&'static dyn SupportedKxGroup> {
    provider::ALL_KX_GROUPS.iter().find(|known| known.name() == group).copied()
}

/// Of several certificates with keys of the same kind the last one counts, as with OpenSSL.
fn one_of_each_kind(identities: &[Identity]) -> Vec<Identity> {
    let kind = |identity: &Identity| identity.key.key.algorithm();
    let is_last =
        |(at, identity): &(usize, &Identity)| identities[at + 1..].iter().all(|later| kind(later) != kind(identity));
    identities.iter().enumerate().filter(is_last).map(|(_, identity)| identity.clone()).collect()
}

/// Chooses the certificate that the client can check.
#[derive(Debug)]
struct Identities(RwLock<Vec<Identity>>);

impl Identities {
    fn new(all: &[Identity]) -> Identities {
        Identities(RwLock::new(one_of_each_kind(all)))
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let [only] = &all[..] {
            return Some(only.current());
        }
        let schemes = hello.signature_schemes();
        let fits =
            |scheme: &SignatureScheme| all.iter().find(|identity| identity.key.key.choose_scheme(&[*scheme]).is_some());
        schemes.iter().find_map(fits).or(all.first()).map(Identity::current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_groups() {
        let check = |list: &str, expect: &[u16]| {
            let found = groups(list).map(|groups| groups.iter().map(|group| group.name().into()).collect::<Vec<u16>>());
            assert_eq!(found.unwrap_or_default(), expect, "{list}");
        };
        check("auto", &[0x11ec, 29, 23, 24]);
        check("prime256v1", &[23]);
        check("X25519:secp521r1:P-384", &[29, 24]);
        check("X25519MLKEM768:X25519", &[0x11ec, 29]);
        check("secp521r1", &[]);
        check("nonsense", &[]);
    }
}
