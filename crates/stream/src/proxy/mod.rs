//! `proxy_pass`: sessions are passed on to a server or a group of servers.

mod datagrams;
mod handover;
mod reach;
mod relay;
mod variables;

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use common::backend::connect::ConnectConf;
use common::backend::groups;
use common::backend::header::Header;
use common::backend::ssl::{self, UpstreamSslConf, UpstreamTls};
use common::backend::targets::{self, Found, Groups};
use common::vars::{size_template, template_of};
use conf::values::{flag, msec, number, one_of, size};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use engine::handover::Parcel;
use expr::vars::Template;
use upstream::Url;
use wire::proxy_protocol::{TLV_CRC32C, tlv_kind};

pub(crate) use self::datagrams::Relay;
use self::reach::{Line, Reached};
use crate::config::CoreServer;
use crate::module::{Content, Handlers, ServerContext, Serving, StreamModule};
use crate::proto::{EVERYWHERE, Setup, StreamProto};
use crate::server::Stream;
use crate::session::{Link, StreamSession};
use crate::ssl::protocol;
use crate::udp::End;

/// The module.
pub struct Proxy;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// How sessions are passed on.
    pub struct ProxyConf, raw ProxyRaw, module "ngx_stream_proxy_module", level STREAM Server;

    under "proxy_" {
        /// How connections are made.
        connect: ConnectConf<StreamProto> [connection, retries, sockets];
        /// TLS to the server.
        ssl: UpstreamSslConf<StreamProto> [all];
    }
    /// Passes sessions on to a server or a group of servers.
    ///
    /// Form: `proxy_pass address`
    ///
    /// - `address`: a host name or an IP address with a port, `unix:path`, the name of an `upstream`, or a text with
    ///   variables.
    ///
    /// Effect: a connection is opened for each session, and bytes are passed both ways until one side closes its connection
    /// (see `proxy_half_close`) or nothing has passed for `proxy_timeout`. A name with several addresses is as many servers.
    /// A name that a variable gives is looked up among the groups, and then by `resolver`.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:5432;
    ///     proxy_pass 127.0.0.1:5433;
    /// }
    /// ```
    "proxy_pass" in Context::STREAM_SERVER, ONE, default none,
        scalar(proxy_pass) proxy_pass: Option<Rc<Pass>> = None;
    /// Ends a session when nothing has passed for this time.
    ///
    /// Form: `proxy_timeout time`
    ///
    /// - `time`: the time without a read or a write, in either direction.
    ///
    /// Effect: both connections are closed.
    ///
    /// Danger: protocols whose sessions are silent for long (databases, queues, SSH) need a long time, or keep-alive messages
    /// of their own.
    ///
    /// ```nginx
    /// proxy_timeout 1h;
    /// ```
    "proxy_timeout" in EVERYWHERE, ONE, default "10m",
        scalar(msec) proxy_timeout: u64 = 600_000;
    /// Sets how much is read from either side at once.
    ///
    /// Form: `proxy_buffer_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: so much of each direction is in memory while the other side doesn't take it.
    ///
    /// Cost: idle sessions hold no buffers.
    ///
    /// ```nginx
    /// proxy_buffer_size 32k;
    /// ```
    "proxy_buffer_size" in EVERYWHERE, ONE, default "16k",
        scalar(size) proxy_buffer_size: usize = 16384;
    /// Obsolete: use `proxy_buffer_size`, which it sets.
    "proxy_downstream_buffer" in EVERYWHERE, ONE, default none,
        also(deprecated_buffer);
    /// Obsolete: use `proxy_buffer_size`, which it sets.
    "proxy_upstream_buffer" in EVERYWHERE, ONE, default none,
        also(deprecated_buffer);
    /// Limits the speed at which is read from clients.
    ///
    /// Form: `proxy_upload_rate rate`
    ///
    /// - `rate`: bytes a second for each session, or a text with variables; 0 is no limit.
    ///
    /// Effect: a client with two sessions gets twice as much. Variables are evaluated when the session is passed on.
    ///
    /// ```nginx
    /// proxy_upload_rate 1m;
    /// ```
    "proxy_upload_rate" in EVERYWHERE, ONE, default "0",
        scalar(size_template::<StreamProto>) proxy_upload_rate: Option<Rc<Template>> = None;
    /// Limits the speed at which is read from the server.
    ///
    /// Form: `proxy_download_rate rate`
    ///
    /// - `rate`: bytes a second for each session, or a text with variables; 0 is no limit.
    ///
    /// Effect: a client with two sessions gets twice as much. Variables are evaluated when the session is passed on.
    ///
    /// ```nginx
    /// proxy_download_rate 1m;
    /// ```
    "proxy_download_rate" in EVERYWHERE, ONE, default "0",
        scalar(size_template::<StreamProto>) proxy_download_rate: Option<Rc<Template>> = None;
    /// Limits how many datagrams of a client make a session.
    ///
    /// Form: `proxy_requests number`
    ///
    /// - `number`: after so many datagrams, the next one begins another session; 0 is no limit.
    ///
    /// Effect: for UDP only. With `1`, each datagram is passed on by itself, to the next server of the group.
    ///
    /// ```nginx
    /// proxy_requests 1;
    /// ```
    "proxy_requests" in EVERYWHERE, ONE, default "0",
        scalar(number) proxy_requests: usize = 0;
    /// Says how many datagrams the server sends in answer to one of the client.
    ///
    /// Form: `proxy_responses number`
    ///
    /// - `number`: how many; 0 if the server doesn't answer.
    ///
    /// Effect: for UDP only. The session ends when the client's datagrams are answered; by default `proxy_timeout` alone
    /// ends it.
    ///
    /// ```nginx
    /// proxy_responses 1;
    /// ```
    "proxy_responses" in EVERYWHERE, ONE, default computed("no limit"),
        scalar(|l: &mut Loader<'_>, d: &Directive| number(l, d).map(Some)) proxy_responses: Option<usize> = None;
    /// Passes a session to the next server of the group if a connection can't be opened.
    ///
    /// Effect: `proxy_next_upstream_tries` and `proxy_next_upstream_timeout` bound it. Once a connection is open, the session
    /// stays with it.
    ///
    /// ```nginx
    /// proxy_next_upstream off;
    /// ```
    "proxy_next_upstream" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) proxy_next_upstream: bool = true;
    /// Begins connections to the server with a header of the PROXY protocol, which names the client.
    ///
    /// Form: `proxy_protocol on | off | v2`
    ///
    /// - `on`: version 1, a line of text.
    /// - `v2`: version 2, binary.
    /// - `off`: no header is sent.
    ///
    /// Effect: the server has to expect it. With `proxy_ssl` the header precedes the handshake.
    ///
    /// ```nginx
    /// proxy_protocol on;
    /// ```
    "proxy_protocol" in EVERYWHERE, ONE, default "off",
        scalar(one_of(Header::NAMES)) proxy_protocol: Header = Header::Off;
    /// Adds a field (TLV) to the header of the PROXY protocol, version 2.
    ///
    /// Form: `proxy_protocol_tlv name value`
    ///
    /// - `name`: `alpn`, `authority`, `unique_id`, `netns`, or a number such as `0xe0`.
    /// - `value`: a text with variables; if it is empty, the field is left out.
    ///
    /// Effect: it needs `proxy_protocol v2`. The directive may be repeated; a level with any doesn't inherit those of the level
    /// around it. The fields stand in the order of the file, after them a checksum of the header.
    ///
    /// ```nginx
    /// proxy_protocol v2;
    /// proxy_protocol_tlv authority $ssl_preread_server_name;
    /// proxy_protocol_tlv 0xe0 edge-1;
    /// ```
    "proxy_protocol_tlv" in EVERYWHERE, Args::exactly(2), default none,
        list(field) proxy_protocol_tlv: Field;
    /// Says which datagrams to the server begin with the header of the PROXY protocol.
    ///
    /// Form: `proxy_protocol_datagrams first | each`
    ///
    /// - `first`: the first one of a session.
    /// - `each`: all of them, for servers that don't know sessions.
    ///
    /// Effect: for UDP only, and with `proxy_protocol`. What the server answers has no header. For what clients send, see
    /// `proxy_protocol` and `proxy_protocol=each` of `listen`.
    ///
    /// Cost: with `each`, 28 to 60 bytes more for each datagram; one that nearly fills a packet is cut into fragments.
    ///
    /// ```nginx
    /// proxy_protocol v2;
    /// proxy_protocol_datagrams each;
    /// ```
    "proxy_protocol_datagrams" in EVERYWHERE, ONE, default "first",
        scalar(one_of(DATAGRAMS)) proxy_protocol_datagrams: Headed = Headed::First;
    /// Closes each direction of a connection by itself if it is `on`.
    ///
    /// Effect: when one side has sent all that it wanted to send, and closes its direction, the other one is told so, and may
    /// go on to send. With `off` the session is over as soon as either side has closed its direction.
    ///
    /// Danger: with `on` a session whose client has gone for good lives on until the server has closed its side too.
    ///
    /// ```nginx
    /// proxy_half_close on;
    /// ```
    "proxy_half_close" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) proxy_half_close: bool = false;
    /// Speaks TLS with the server if it is `on`.
    ///
    /// Effect: the `proxy_ssl_*` directives say how.
    ///
    /// ```nginx
    /// proxy_ssl on;
    /// ```
    "proxy_ssl" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) proxy_ssl: bool = false;
    /// Names the protocols that are offered to the server with ALPN, the preferred one first.
    ///
    /// Form: `proxy_ssl_alpn protocol ...`
    ///
    /// - `protocol`: a name, such as `h2`, or a text with variables; one whose value is empty isn't offered.
    ///
    /// Effect: with `$ssl_alpn_protocol`, the server is offered what was agreed on with the client.
    ///
    /// ```nginx
    /// proxy_ssl_alpn $ssl_alpn_protocol;
    /// ```
    "proxy_ssl_alpn" in EVERYWHERE, Args::at_least(1), default none,
        set(alpn) proxy_ssl_alpn: Rc<[Rc<Template>]> = Rc::new([]);
}

/// `proxy_protocol_tlv`
#[derive(Clone)]
pub struct Field {
    kind: u8,
    value: Rc<Template>,
}

fn field(loader: &mut Loader<'_>, d: &Directive) -> Result<Field> {
    let kind = tlv_kind(&d.arg(0).lossy()).filter(|kind| *kind != TLV_CRC32C);
    let kind = kind.ok_or_else(|| Error::at(d.arg(0), format!("unknown TLV \"{}\"", d.arg(0).lossy())))?;
    Ok(Field { kind, value: template_of::<StreamProto>(loader, d, &d.arg(1).text)? })
}

/// `proxy_protocol_datagrams`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headed {
    /// The first datagram.
    First,
    /// Each datagram.
    Each,
}

const DATAGRAMS: &[(&str, Headed)] = &[("first", Headed::First), ("each", Headed::Each)];

fn deprecated_buffer(raw: &mut ProxyRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let name = d.name.lossy();
    let message = format!("the \"{name}\" directive is deprecated, use the \"proxy_buffer_size\" directive instead");
    loader.warn(d, Error::on(d, message));
    if raw.proxy_buffer_size.is_some() {
        return Err(conf::table::duplicate(d));
    }
    raw.proxy_buffer_size = Some(size(loader, d)?);
    Ok(())
}

fn alpn(raw: &mut ProxyRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    if raw.proxy_ssl_alpn.is_some() {
        return Err(conf::table::duplicate(d));
    }
    let names = d.args.iter().map(|word| template_of::<StreamProto>(loader, d, protocol(word)?));
    raw.proxy_ssl_alpn = Some(names.collect::<Result<_>>()?);
    Ok(())
}

/// What `proxy_pass` says.
#[derive(Clone, Debug)]
pub struct Pass {
    directive: Directive,
    target: PassTarget,
}

#[derive(Clone, Debug)]
enum PassTarget {
    Fixed(Url),
    Variable(Rc<Template>),
}

fn proxy_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Pass>>> {
    let word = d.arg(0);
    let target = if word.text.contains(&b'$') {
        PassTarget::Variable(template_of::<StreamProto>(loader, d, &word.text)?)
    } else {
        let url = Url::parse(&word.text, false);
        let wrong = |error| Error::at(word, format!("{error} in upstream \"{}\"", word.lossy()));
        PassTarget::Fixed(url.map_err(wrong)?)
    };
    Ok(Some(Rc::new(Pass { directive: d.clone(), target })))
}

/// Where a server's sessions go.
pub(crate) enum Destination {
    /// All to the same group.
    Fixed {
        /// The group.
        found: Found,
        /// The host as it is written.
        host: Rc<[u8]>,
    },
    /// Each where a template says.
    Variable {
        /// The address.
        template: Rc<Template>,
        /// The groups of the configuration.
        groups: Rc<RefCell<Groups>>,
    },
}

/// How a server's sessions are passed on.
pub(crate) struct Backend {
    pub(crate) conf: Rc<ProxyConf>,
    pub(crate) destination: Destination,
    pub(crate) tls: Option<UpstreamTls>,
}

impl StreamModule for Proxy {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<ProxyConf>();
        groups::tables::<StreamProto>(registry);
    }

    fn variables(&self, setup: &mut Setup) {
        variables::define(setup);
    }

    fn prepare(&self, loader: &mut Loader<'_>) -> Result<()> {
        groups::check::<StreamProto>(loader)
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let names = cx.outer.get::<CoreServer>().shared.names();
        targets::groups::<StreamProto>(cx.loader).borrow_mut().set_names(names);
        let conf = cx.set.share::<ProxyConf>();
        let Some(pass) = conf.proxy_pass.clone() else { return Ok(()) };
        let destination = match &pass.target {
            PassTarget::Variable(template) => {
                let groups = targets::groups::<StreamProto>(cx.loader);
                Destination::Variable { template: template.clone(), groups }
            }
            PassTarget::Fixed(url) => {
                let found = targets::group_of::<StreamProto>(cx.loader, &pass.directive, url, None)?;
                Destination::Fixed { found, host: url.host.as_slice().into() }
            }
        };
        let tls = match conf.proxy_ssl {
            false => None,
            true => {
                let client = ssl::client(&conf.ssl, "proxy_", &[], cx.loader);
                let at = |name: &&str| (cx.place)(cx.loader.registry(), &format!("proxy_{name}"));
                let place = ["ssl_ciphers", "ssl_conf_command", "ssl_verify", "ssl"].iter().find_map(at);
                Some(client.map_err(|error| error.or_at(place))?)
            }
        };
        out.content = Some(Rc::new(Backend { conf, destination, tls }));
        Ok(())
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        Some(Box::new(targets::groups::<StreamProto>(loader)))
    }

    fn start_worker(&self, stream: &Rc<Stream>) {
        if let Some(groups) = stream.part::<Rc<RefCell<Groups>>>() {
            groups.borrow().start();
        }
    }

    fn adopt(&self, stream: &Rc<Stream>, parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        handover::adopt(stream, parcel, back)
    }
}

impl Content for Backend {
    fn serve<'a>(&'a self, mut s: Box<StreamSession>) -> Serving<'a> {
        Box::pin(async move {
            // In a box of its own: what follows lasts longer, and needs less.
            match Box::pin(self.reach(&mut s)).await {
                Ok(Reached { choice, backend, began_ms, header }) => match (backend, &s.link) {
                    (Line::Stream(backend), _) => {
                        Box::pin(relay::run(self, s, Reached { choice, backend, began_ms, header })).await
                    }
                    (Line::Datagrams(backend), Link::Datagrams(End(client))) => {
                        let client = client.clone();
                        let reached = Reached { choice, backend, began_ms, header };
                        Box::pin(datagrams::run(self, s, client, reached)).await
                    }
                    (Line::Datagrams(_), Link::Stream(_)) => Some(s),
                },
                Err(status) => {
                    s.status = status.0;
                    Some(s)
                }
            }
        })
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function returns.
    fn size<A, B, R>(_: impl Fn(&'static Backend, A, B) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn sessions_are_small() {
        let sizes = [
            ("TCP", size(|b, s, reached: Reached| relay::run(b, s, reached)), 850),
            ("UDP", size(|b, s, (client, reached)| datagrams::run(b, s, client, reached)), 570),
            ("reaching a server", size(|b, s: &'static mut StreamSession, ()| b.reach(s)), 840),
        ];
        for (what, size, most) in sizes {
            // What is larger than 1032 bytes takes the allocator longer, too.
            assert!(size <= most, "{what}: {size} bytes");
        }
    }
}
