//! Mail as an application of the program: built from the configuration, run in each worker.

use std::rc::Rc;

use common::front::blocks::{Builder, ServerNode};
use common::front::ssl::{self, Ssl, SslConf, Watched};
use common::modules::realip::{FromProxy, Realip, RealipConf};
use conf::{Error, Loader, Registry, Result, Set};
use engine::handover::{Handover, Parcel};
use engine::{App, BuildContext, Listen, WorkerContext};
use os::SockAddr;

use crate::auth_http::AuthHttpConf;
use crate::config::{CoreMain, CoreServer};
use crate::handover;
use crate::imap::ImapConf;
use crate::pop3::Pop3Conf;
use crate::proto::{MailProto, Protocol};
use crate::proxy::ProxyConf;
use crate::server::{Mail, MailListen, Server, Worker};
use crate::session::{self, Client, MailSession};
use crate::smtp::SmtpConf;
use crate::starttls::{Starttls, StarttlsConf};

/// Mail as a module of the program.
pub struct Module;

impl engine::Module for Module {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<CoreMain>();
        registry.add::<CoreServer>();
        registry.add::<StarttlsConf>();
        common::modules::Module::<MailProto>::tables(&Ssl, registry);
        common::modules::Module::<MailProto>::tables(&Realip, registry);
        registry.add::<ImapConf>();
        registry.add::<Pop3Conf>();
        registry.add::<SmtpConf>();
        registry.add::<AuthHttpConf>();
        registry.add::<ProxyConf>();
    }

    fn build(&self, loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> Result<Option<Rc<dyn App>>> {
        ssl::reading_once(loader, cx, |loader| build(loader, cx))
    }
}

fn build(loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> Result<Option<Rc<dyn App>>> {
    let Some(builder) = Builder::<MailProto>::take(loader) else { return Ok(None) };
    let sets = builder.resolve(loader)?.servers;
    for set in &sets {
        ssl::compile::<MailProto>(set, loader)?;
    }
    let variables = Rc::new(common::vars::finish(loader)?);
    let mut made = ssl::Servers::default();
    let mut servers = Vec::with_capacity(sets.len());
    for (node, set) in builder.servers.iter().zip(sets) {
        servers.push(Rc::new(server(&builder, node, set, &mut made, loader)?));
    }
    let sockets = builder.sockets(&servers, loader)?;
    let mail = Mail { sockets, variables, log: cx.log.clone(), worker: Worker::default() };
    Ok(Some(Rc::new(MailApp { mail: Rc::new(mail), watched: made.watched })))
}

fn server(
    builder: &Builder<MailProto>,
    node: &ServerNode<MailListen>,
    set: Set,
    made: &mut ssl::Servers,
    loader: &mut Loader<'_>,
) -> Result<Server> {
    if node.listens.is_empty() {
        return Err(Error::place(node.place, "no \"listen\" is defined for server"));
    }
    let core = set.share::<CoreServer>();
    let port = node.listens.iter().find_map(|listen| Protocol::of_port(listen.addr.port()));
    let protocol = core.protocol.or(port).ok_or_else(|| {
        let error = Error::place(node.place, "unknown mail protocol for server");
        error.hint("\"protocol\" names it where the port doesn't")
    })?;
    if set.get::<AuthHttpConf>().auth_http.is_none() {
        return Err(Error::place(node.place, "no \"auth_http\" is defined for server"));
    }
    let (conf, starttls) = (set.get::<SslConf<MailProto>>(), set.share::<StarttlsConf>());
    if starttls.starttls != Starttls::Off {
        let lacks = |what: &str| {
            let place = builder.server_place(node, loader.registry(), "starttls");
            let message = format!("no \"{what}\" is defined for the \"starttls\" directive");
            Err(Error::new(message).or_at(place).or_at(Some(node.place)))
        };
        if conf.ssl_certificate.is_empty() {
            return lacks("ssl_certificate");
        }
        if conf.ssl_certificate_key.len() < conf.ssl_certificate.len() {
            return lacks("ssl_certificate_key");
        }
    }
    let tls = builder.tls(node, (&set, &core.shared.names()), &[protocol.name().as_bytes()], made, loader)?;
    let name = match &*core.server_name {
        "" => engine::log::hostname(),
        name => name.to_owned(),
    };
    Ok(Server {
        protocol,
        name: name.into(),
        auth: set.share::<AuthHttpConf>(),
        proxy: set.share::<ProxyConf>(),
        imap: set.share::<ImapConf>(),
        pop3: set.share::<Pop3Conf>(),
        smtp: set.share::<SmtpConf>(),
        starttls,
        tls,
        realip: set.get::<RealipConf<MailProto>>().trusted.clone().map(FromProxy::new),
        core,
        set,
    })
}

/// Mail in a worker; in the master the servers whose certificates are watched.
struct MailApp {
    mail: Rc<Mail>,
    watched: Watched,
}

impl App for MailApp {
    fn listens(&self) -> Vec<Listen> {
        self.mail.sockets.iter().map(|socket| socket.listen.clone()).collect()
    }

    fn start_worker(self: Rc<Self>, _: &WorkerContext) {}

    fn accept(self: Rc<Self>, listen: usize, stream: rt::Stream, peer: SockAddr) {
        let Some(socket) = self.mail.sockets.get(listen) else { return };
        let address = socket.address(|| stream.local_addr().ok());
        let session = MailSession::new(&self.mail, address, stream, peer);
        rt::spawn(session::serve(Box::new(Client::new(session))));
    }

    fn busy(&self) -> usize {
        self.mail.worker.sessions.get()
    }

    fn hand_over(&self, to: &Rc<Handover>) {
        self.mail.worker.successors.set(to);
    }

    fn adopt(self: Rc<Self>, parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        handover::adopt(&self.mail, parcel, back)
    }

    fn looks_in_ms(&self) -> Option<u64> {
        self.watched.looks_in_ms()
    }

    fn look(&self) -> bool {
        self.watched.look(&self.mail.log)
    }
}
