//! `pass`: hands a client's connection to another listening socket of the program, as if it had come there.

use std::rc::Rc;

use common::Base;
use common::vars::{self, template_of};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use expr::vars::Template;
use os::SockAddr;
use os::socket::Kind;
use upstream::{Url, UrlError};

use crate::module::{Content, Handlers, ServerContext, Serving, StreamModule};
use crate::proto::StreamProto;
use crate::session::{Link, StreamSession};

/// The module.
pub struct Pass;

conf::table! {
    /// Where connections are passed to.
    pub struct PassConf, raw PassRaw, module "ngx_stream_pass_module", level STREAM Server;

    /// Passes the client's connection to another listening socket of this program: of `http`, `stream` or `mail`.
    ///
    /// Form: `pass address`
    ///
    /// - `address`: an address and port, or `unix:path`, as a `listen` has it; a text with variables.
    ///
    /// Effect: the connection goes on there as if it had been accepted there, in the same worker, without another
    /// connection. If TLS has ended here, the other server gets what was encrypted. The session isn't logged here. A
    /// connection that has been passed ten times is closed instead.
    ///
    /// ```nginx
    /// stream {
    ///     server {
    ///         listen 127.0.0.1:8443 ssl;
    ///         ssl_certificate site.crt;
    ///         ssl_certificate_key site.key;
    ///         pass 127.0.0.1:8080;
    ///     }
    ///     server {
    ///         listen 127.0.0.1:8080;
    ///         return hello;
    ///     }
    /// }
    /// ```
    "pass" in Context::STREAM_SERVER, Args::exactly(1), default none,
        scalar(pass) pass: Option<Target> = None;
}

/// What the directive says.
#[derive(Clone)]
pub enum Target {
    /// One of these addresses.
    Fixed(Rc<[SockAddr]>),
    /// Each session has its own.
    Variable(Rc<Template>),
}

fn pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Target>> {
    let word = d.arg(0);
    let template = template_of::<StreamProto>(loader, d, &word.text)?;
    if template.is_const().is_none() {
        return Ok(Some(Target::Variable(template)));
    }
    let wrong = |why: &dyn std::fmt::Display| {
        Error::at(word, format!("{why} in \"{}\" of the \"pass\" directive", word.lossy()))
    };
    let url = Url::parse(&word.text, false).map_err(|error| wrong(&error))?;
    let addrs = url.resolve(0).map_err(|error| match error {
        UrlError::NotFound => Error::at(word, "\"pass\" directive has no addresses"),
        error => wrong(&error),
    })?;
    if url.port.is_none() && !url.is_unix() {
        return Err(Error::at(word, "\"pass\" directive has no port"));
    }
    Ok(Some(Target::Fixed(addrs.into())))
}

impl StreamModule for Pass {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<PassConf>();
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if let Some(target) = &cx.set.get::<PassConf>().pass {
            out.content = Some(Rc::new(Passed(target.clone())));
        }
        Ok(())
    }
}

struct Passed(Target);

impl Content for Passed {
    fn serve<'a>(&'a self, mut s: Box<StreamSession>) -> Serving<'a> {
        s.doing = "passing connection to port";
        if s.link.stream().is_none() {
            s.log_error(format_args!("cannot pass udp connection"));
            s.status = INTERNAL_ERROR;
            return Box::pin(std::future::ready(Some(s)));
        }
        let left = match self.addresses(&mut s) {
            Some(addrs) => give(s, &addrs).err(),
            None => {
                s.status = INTERNAL_ERROR;
                Some(s)
            }
        };
        Box::pin(std::future::ready(left))
    }
}

impl Passed {
    fn addresses(&self, s: &mut StreamSession) -> Option<Rc<[SockAddr]>> {
        let template = match &self.0 {
            Target::Fixed(addrs) => return Some(addrs.clone()),
            Target::Variable(template) => template,
        };
        let text = vars::render(s, template);
        let url = Url::parse(&text, false);
        let addr = url.as_ref().ok().filter(|url| url.port.is_some() || url.is_unix()).and_then(Url::literal);
        match addr {
            Some(addr) => Some([addr].into()),
            None => {
                let why = url.err().map_or("no port".to_owned(), |error| error.to_string());
                s.log_error(format_args!("{why} in pass \"{}\"", buf::text::encode(&text)));
                None
            }
        }
    }
}

/// Hands the connection on; the session comes back if nobody listens there.
fn give(mut s: Box<StreamSession>, addrs: &[SockAddr]) -> std::result::Result<(), Box<StreamSession>> {
    let Some(cycle) = s.stream.worker.cycle.get().and_then(std::rc::Weak::upgrade) else { return Err(s) };
    let fits = |addr: &SockAddr, listen: &SockAddr| {
        let is_wildcard = listen.is_wildcard() && listen.port() == addr.port();
        listen == addr || is_wildcard && matches!(listen, SockAddr::V6(_)) == matches!(addr, SockAddr::V6(_))
    };
    let sockets = || cycle.listening.iter().filter(|socket| socket.listen.options.kind == Kind::Stream);
    let exact = sockets().find(|socket| addrs.contains(&socket.listen.addr));
    let socket = exact.or_else(|| sockets().find(|socket| addrs.iter().any(|addr| fits(addr, &socket.listen.addr))));
    let Some((socket, app)) = socket.and_then(|socket| Some((socket, cycle.apps.get(socket.app)?))) else {
        let shown = addrs.first().map_or_else(String::new, SockAddr::to_string);
        s.log_error(format_args!("port not found for \"{shown}\""));
        return Err(s);
    };
    if s.link.stream().is_some_and(|stream| stream.count_pass() > MOST_PASSES) {
        s.log_error(format_args!("stream pass cycle"));
        s.status = INTERNAL_ERROR;
        return Err(s);
    }
    let first = s.take_first();
    if s.base.tls.is_some() && !first.is_empty() {
        s.log_error(format_args!("cannot pass buffered data"));
        s.status = INTERNAL_ERROR;
        return Err(s);
    }
    let StreamSession { link: Link::Stream(stream), base: Base { peer, .. }, .. } = *s else { return Ok(()) };
    if !first.is_empty() {
        let mut unread = buf::Buf::with_capacity(first.len());
        unread.extend_from_slice(&first);
        stream.unread(unread);
    }
    app.clone().accept(socket.index, stream, peer);
    Ok(())
}

/// As in nginx, a connection that was passed so often goes round in a circle.
const MOST_PASSES: u8 = 10;
/// The connection goes round in a circle, it has no target, or what has come of it can't be passed.
const INTERNAL_ERROR: u16 = 500;
