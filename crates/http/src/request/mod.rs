//! A request: its head, where it is in the configuration, its response.

mod credentials;
mod details;
pub mod facts;
mod pause;
mod rate;
mod state;
pub mod subrequest;
#[cfg(test)]
mod tests;
pub mod variables;

use std::any::Any;
use std::fmt;
use std::rc::Rc;

use buf::{Buf, Bytes};
use common::slots::Slots;
use common::vars::Store;
use engine::log::{Level, Log};
use os::SockAddr;
use wire::Span;
use wire::h1::{HeaderSpan, KnownHeader, Method, RequestHead, RequestParser};

use self::facts::ConnectionFacts;
use self::subrequest::Family;
use crate::body::RequestBody;
use crate::config::core::Alias;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::phases::{Flow, MAX_URI_CHANGES, Reply, Resume};
use crate::response::field::safe;
use crate::response::{Body, Response};
use crate::server::location::{Found, Kind, Location, LocationId, Tree};
use crate::server::{Address, Http, Server};
use crate::session::client::Client;
use crate::session::connection::{Connection, Link};
use crate::session::h2::StreamHandle;

pub use self::credentials::Credentials;
pub use self::details::Details;
pub use self::state::{Delivery, Ending, UriFit, UriSource};

/// How many requests' memory is kept for the next ones.
const MAX_SPARE: usize = 64;

/// A request with its response.
pub struct Request {
    /// The facts of the connection it came on.
    pub conn: ConnectionFacts,
    /// The trusted proxy whose connection it is, where `conn.peer` is the client that it named.
    pub relay: Option<SockAddr>,
    /// The connection's serial number.
    pub number: u64,
    /// What carries its bytes; `None` if the request has no client, or if its connection has been handed over.
    pub link: Option<Link>,
    /// Reads the head.
    pub parser: RequestParser,
    /// The configuration.
    pub http: Rc<Http>,
    /// The server it is for.
    pub server: Rc<Server>,
    /// The location it is in; before one is found the server's own level.
    pub location: Rc<Location>,
    /// The bytes of its head.
    pub head: Bytes,
    /// The parts of the head.
    pub line: RequestHead,
    /// The method; error pages turn it into GET.
    pub method: Method,
    /// The path, decoded and normalised.
    pub uri: Vec<u8>,
    /// The query, without `?`.
    pub args: Vec<u8>,
    /// Who has made `uri` and `args`.
    pub uri_source: UriSource,
    /// How `uri` fits the location.
    pub uri_fit: UriFit,
    /// The host asked for, in lower case, without port; empty if there is none.
    pub host: Vec<u8>,
    /// The backends that were asked, and their responses.
    pub upstream: Option<Rc<Exchange>>,
    /// Its own values of variables, captures, and what modules keep over internal redirects.
    pub vars: Store,
    /// The response.
    pub response: Response,
    /// The body.
    pub body: RequestBody,
    /// The phase that is next.
    pub resume: Resume,
    /// How often the URI may still be changed.
    pub uri_changes: u8,
    /// Whether it is internal: a redirect within the server or a subrequest.
    pub internal: bool,
    /// The status of the error whose page this is; 0 for none.
    pub error_status: u16,
    /// Whether an error page is being made.
    pub error_page: bool,
    /// What becomes of the connection after the response.
    pub ending: Ending,
    /// Whether it came in the same read as the one before.
    pub pipelined: bool,
    /// How much of the response was sent.
    pub delivery: Delivery,
    /// When it began, in the loop's milliseconds.
    pub start_ms: u64,
    /// How many bytes the connection had sent when the request began.
    pub sent_before: u64,
    /// The number of bytes of the response's head.
    pub header_sent: u64,
    /// How many bytes of the body another worker has read.
    pub body_before: u64,
    /// Memory for the head of the response, between responses.
    pub(crate) head_memory: Buf,
    /// `$limit_rate`: set by `set` or a backend, else by `limit_rate` once the response is begun.
    pub rate: Option<u64>,
    /// `$request_id`, once it has been read.
    pub id: Option<String>,
    /// How deep it is nested as a subrequest; 0 for a client's.
    depth: u8,
    /// What it shares with its subrequests, if it has some or is one.
    family: Option<Rc<Family>>,
    slots: Slots,
}

impl Drop for Request {
    /// Requests end by [`Request::end`]; one that still has its connection is dropped with its task.
    fn drop(&mut self) {
        if self.link.is_some() && std::thread::panicking() {
            // After a panic its state may be anything: another panic in here must not end the process.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.note_panic()));
        }
    }
}

impl Request {
    /// A request on a connection, with nothing read yet. It uses the memory of one that has ended, if there is one.
    #[inline]
    pub fn begin(conn: Connection, http: &Rc<Http>) -> Box<Request> {
        let Connection { facts, link } = conn;
        let mut r = Request::take_spare(&facts.address, http);
        if !Rc::ptr_eq(&r.server, facts.server()) {
            r.server.clone_from(facts.server());
        }
        r.location.clone_from(&r.server.root);
        r.sent_before = link.stream.sent();
        r.number = link.stream.number();
        r.start_ms = rt::now_ms();
        r.conn = facts;
        r.link = Some(link);
        r
    }

    /// The memory of a request that has ended, if there is one.
    fn take_spare(address: &Rc<Address>, http: &Rc<Http>) -> Box<Request> {
        let spare = http.worker.spare.borrow_mut().pop();
        spare.unwrap_or_else(|| Box::new(Request::empty(address.clone(), http.clone())))
    }

    /// Ends the request: its connection, and its memory for the next one.
    #[inline]
    pub fn end(mut self: Box<Request>) -> Option<Connection> {
        let conn = self.take_connection();
        self.clear();
        let http = self.http.clone();
        let mut spare = http.worker.spare.borrow_mut();
        if spare.len() < MAX_SPARE && !http.worker.quitting.get() {
            spare.push(self);
        }
        conn
    }

    /// Takes the connection away from its request, which can't be answered after that.
    pub fn take_connection(&mut self) -> Option<Connection> {
        let link = self.link.take()?;
        if let Some(relay) = self.relay.take() {
            self.conn.peer = relay;
        }
        let nobody = ConnectionFacts::nobody(self.conn.address.clone());
        Some(Connection { facts: std::mem::replace(&mut self.conn, nobody), link })
    }

    /// Makes the address that a trusted proxy names the client's, for this request.
    pub fn replace_peer(&mut self, client: SockAddr) {
        self.relay = Some(std::mem::replace(&mut self.conn.peer, client));
    }

    /// The way to the client, if there is one.
    pub fn client(&self) -> Option<&Client> {
        self.link.as_ref().map(|link| &link.stream)
    }

    /// The stream of HTTP/2 by which the client is reached, if it is one.
    pub fn h2_stream(&self) -> Option<&StreamHandle> {
        self.client()?.stream()
    }

    /// The address that the client connected to.
    pub fn local_addr(&mut self) -> &SockAddr {
        let (link, address) = (&self.link, &self.conn.address);
        let rare = self.conn.rare.get_or_insert_default();
        rare.local.get_or_init(|| {
            let local = link.as_ref().and_then(|link| link.local_addr().ok());
            local.unwrap_or_else(|| address.addr.clone())
        })
    }

    /// Asks for the local address while there is a socket that knows it: subrequests have none.
    fn know_local_addr(&mut self) {
        if self.conn.address.addr.is_wildcard() {
            self.local_addr();
        }
    }

    /// Runs the log handlers of the location.
    pub(crate) fn log_access(&mut self) {
        if self.location.handlers.log.is_empty() {
            return;
        }
        let location = self.location.clone();
        for handler in &location.handlers.log {
            handler.log(self);
        }
    }

    /// Logs the request that a panic has ended.
    fn note_panic(&self) {
        if engine::worker::panics::is_told() {
            self.log_at(Level::Alert, format_args!("{}", engine::worker::panics::CONNECTION_CLOSED));
        }
    }

    fn empty(address: Rc<Address>, http: Rc<Http>) -> Request {
        let server = address.default.clone();
        Request {
            conn: ConnectionFacts::nobody(address),
            relay: None,
            number: 0,
            link: None,
            parser: RequestParser::default(),
            location: server.root.clone(),
            server,
            head: Bytes::default(),
            line: RequestHead::default(),
            method: Method::default(),
            uri: Vec::new(),
            args: Vec::new(),
            uri_source: UriSource::Client,
            uri_fit: UriFit::Named,
            host: Vec::new(),
            upstream: None,
            vars: http.variables.store(),
            response: Response::default(),
            body: RequestBody::default(),
            resume: Resume::Server,
            uri_changes: MAX_URI_CHANGES,
            internal: false,
            error_status: 0,
            error_page: false,
            ending: Ending::Close,
            pipelined: false,
            delivery: Delivery::Partial,
            start_ms: 0,
            sent_before: 0,
            header_sent: 0,
            body_before: 0,
            head_memory: Buf::empty(),
            rate: None,
            id: None,
            depth: 0,
            family: None,
            slots: Slots::default(),
            http,
        }
    }

    /// Resets the request to the state of [`Request::empty`] and keeps its memory. The pattern names every field, and
    /// each of them is used: a new field that isn't reset doesn't compile.
    fn clear(&mut self) {
        #[deny(unused_variables)]
        let Request {
            // `begin` and `sub_request` set these.
            conn: _,
            number: _,
            http: _,
            server: _,
            location: _,
            start_ms: _,
            sent_before: _,
            relay,
            link,
            parser,
            head,
            line,
            method,
            uri,
            args,
            uri_source,
            uri_fit,
            host,
            upstream,
            vars,
            response,
            body,
            resume,
            uri_changes,
            internal,
            error_status,
            error_page,
            ending,
            pipelined,
            delivery,
            header_sent,
            body_before,
            head_memory,
            rate,
            id,
            depth,
            family,
            slots,
        } = self;
        // These keep their memory.
        parser.reset();
        line.clear();
        uri.clear();
        args.clear();
        host.clear();
        head_memory.clear();
        vars.clear();
        response.clear();
        body.clear();
        slots.clear();
        (*link, *head, *method) = (None, Bytes::default(), Method::default());
        (*resume, *uri_changes) = (Resume::Server, MAX_URI_CHANGES);
        (*uri_source, *uri_fit, *internal) = (UriSource::Client, UriFit::Named, false);
        (*error_status, *error_page) = (0, false);
        (*ending, *pipelined, *delivery) = (Ending::Close, false, Delivery::Partial);
        (*header_sent, *body_before, *depth) = (0, 0, 0);
        (*relay, *rate, *id, *family) = (None, None, None, None);
        if let Some(exchange) = upstream.take() {
            Exchange::recycle(exchange);
        }
    }

    /// A header field of the request.
    pub fn header(&self, known: KnownHeader) -> Option<&[u8]> {
        self.line.value(known, &self.head)
    }

    /// All values of a header field of the request, in their order.
    pub fn header_lines(&self, known: KnownHeader) -> impl Iterator<Item = &[u8]> {
        let any = self.line.has(known);
        let lines = self.line.headers.iter().filter(move |line| any && line.known == known);
        lines.map(|line| line.value.of(&self.head))
    }

    /// Adds a header field to those of the client; line breaks in the value are encoded.
    pub fn add_header(&mut self, known: KnownHeader, name: &[u8], value: &[u8]) {
        let value = safe(self, name, value, "adding it to the request").into_owned();
        let (name_at, value_at) = (self.head.len(), self.head.len() + name.len());
        let head = [&self.head[..], name, &value].concat();
        self.line.add_header(HeaderSpan {
            name: Span::new(name_at, value_at),
            value: Span::new(value_at, head.len()),
            known,
            invalid: false,
        });
        self.head = Bytes::from(head);
    }

    /// The method's name as the client sent it.
    pub(crate) fn main_method(&self) -> &[u8] {
        self.line.method.of(&self.head)
    }

    /// The method's name as it is now.
    pub fn method_name(&self) -> &[u8] {
        if self.method == self.line.method_id { self.main_method() } else { self.method.name().as_bytes() }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static [u8] {
        if self.conn.is_secure() { b"https" } else { b"http" }
    }

    /// The state of a module for this request, made when first asked for.
    pub fn slot<T: Any + Default>(&mut self) -> &mut T {
        self.slots.entry()
    }

    /// As [`Request::slot`], for state that a request which repeats this one takes over.
    pub fn copied_slot<T: Any + Default + Clone>(&mut self) -> &mut T {
        self.slots.copied_entry()
    }

    /// As [`Request::slot`], for state that stays when the request is redirected internally.
    pub fn lasting_slot<T: Any + Default>(&mut self) -> &mut T {
        self.vars.slots.entry()
    }

    /// As [`Request::find_slot`], of [`Request::lasting_slot`].
    pub fn find_lasting_slot<T: Any>(&self) -> Option<&T> {
        self.vars.slots.find()
    }

    /// The state of a module for this request, if there is any.
    pub fn find_slot<T: Any>(&self) -> Option<&T> {
        self.slots.find()
    }

    /// Finds the location of the URI and enters it.
    pub(crate) fn find_location(&mut self) -> Result<(), Reply> {
        let root = self.server.root.clone();
        if !Rc::ptr_eq(&self.location, &root) {
            self.location = root.clone();
        }
        match self.search(&root.children)? {
            Search::None => {}
            Search::Final(id) | Search::Prefix(id) => self.location = self.http.location(id),
            Search::Redirect(id) => return Err(self.redirect_to_slash(id)),
        }
        Ok(())
    }

    /// nginx's order: an exact name ends the search; else the longest prefix is remembered, its nested locations are
    /// looked at, and then the regexes and after them the predicates of this level, unless the prefix forbids them.
    fn search(&mut self, tree: &Tree) -> Result<Search, Fault> {
        let mut best = Search::None;
        let mut no_regex = false;
        match tree.find(&self.uri) {
            Found::Exact(id) => return Ok(Search::Final(id)),
            Found::Redirect(id) => return Ok(Search::Redirect(id)),
            Found::None => {}
            Found::Prefix(id) => {
                best = Search::Prefix(id);
                let location = self.http.look_at(id);
                no_regex = matches!(location.kind, Kind::Prefix { no_regex: true });
                if !location.children.is_empty() {
                    let location = location.clone();
                    match self.search(&location.children)? {
                        Search::None => {}
                        Search::Prefix(id) => best = Search::Prefix(id),
                        other => return Ok(other),
                    }
                }
            }
        }
        if !no_regex && !tree.is_by_name() {
            let http = self.http.clone();
            for &id in &tree.regexes {
                let location = http.look_at(id);
                let Kind::Regex(regex) = &location.kind else { continue };
                if !regex.may_match(&self.uri) {
                    continue;
                }
                let uri = std::mem::take(&mut self.uri);
                let matched = regex.exec(self, &uri);
                self.uri = uri;
                if matched? {
                    return self.search_inside(location);
                }
            }
            for &id in &tree.predicates {
                let location = http.look_at(id);
                if let Kind::Predicate(condition) = &location.kind
                    && self.test(condition)
                {
                    return self.search_inside(location);
                }
            }
        }
        Ok(best)
    }

    /// The location itself, which nothing outside comes before any more, or one nested in it.
    fn search_inside(&mut self, location: &Location) -> Result<Search, Fault> {
        let nested = self.search(&location.children)?;
        Ok(match nested {
            Search::None => Search::Final(location.id),
            Search::Prefix(id) => Search::Final(id),
            other => other,
        })
    }

    /// `/dir` for a location `/dir/` that takes all requests: the client is told.
    fn redirect_to_slash(&mut self, id: LocationId) -> Reply {
        self.location = self.http.location(id);
        let mut target = Vec::new();
        wire::uri::escape(wire::uri::Escape::Uri, &self.location.name, &mut target);
        if !self.args.is_empty() {
            target.push(b'?');
            target.extend_from_slice(&self.args);
        }
        self.response.headers.set_fixed(KnownHeader::Location, target);
        Reply(301)
    }

    /// Checks what doesn't depend on the location's handlers: `internal`, `limit_except`, the size of the body.
    pub(crate) fn check_location(&mut self) -> Result<(), Reply> {
        if self.location.core.internal && !self.internal {
            return Err(Reply(404));
        }
        while let Some((methods, inner)) = self.location.limit_except {
            if self.method.bit() & methods != 0 {
                break;
            }
            self.location = self.http.location(inner);
        }
        if self.internal { Ok(()) } else { Ok(self.check_body_length()?) }
    }

    /// Checks a length of the body that is known by now.
    pub(crate) fn check_body_length(&mut self) -> Result<(), Fault> {
        let limit = self.location.core.client_max_body_size;
        match self.body.known_length() {
            Some(length) if limit > 0 && length > limit => {
                self.body.refuse_whole();
                Err(Fault::TooLargeBody.log_with(self, &length))
            }
            _ => Ok(()),
        }
    }

    /// Enters an `if` block. A block without a handler after one with a handler (`proxy_pass`) is a mistake: nginx
    /// would run that handler without its configuration, and answers 500. `lost_handler` says whether that has
    /// happened with the blocks before this one, the result whether it has now.
    #[must_use]
    pub fn enter_if(&mut self, block: LocationId, lost_handler: bool) -> bool {
        let outer = std::mem::replace(&mut self.location, self.http.location(block));
        (lost_handler || outer.handlers.exclusive) && !self.location.handlers.exclusive
    }

    /// Notes that the server has replaced the URI or its arguments.
    pub fn note_rewritten(&mut self) {
        if self.uri_source == UriSource::Client {
            self.uri_source = UriSource::Server;
        }
    }

    /// Lets the connection serve no request after this one.
    pub fn close_after(&mut self) {
        if self.ending == Ending::Keep {
            self.ending = Ending::Close;
        }
    }

    /// The connection is given up because its client was silent for too long, or by status 444: closing resets it, if
    /// `reset_timedout_connection` says so.
    pub(crate) fn give_up(&self) {
        if self.location.core.reset_timedout_connection
            && let Some(client) = self.client()
        {
            client.linger_reset();
        }
    }

    /// Counts a change of the URI by rules.
    pub(crate) fn count_rewrite(&mut self) -> Result<(), Fault> {
        if self.count_change() {
            Ok(())
        } else {
            Err(Fault::RewriteCycle.log_with(self, &buf::text::encode(&self.uri)))
        }
    }

    /// Counts a change of the URI; false if there are too many: a cycle.
    fn count_change(&mut self) -> bool {
        let Some(left) = self.uri_changes.checked_sub(1) else {
            // An error page isn't used either: the cycle could be endless.
            self.error_page = true;
            return false;
        };
        self.uri_changes = left;
        true
    }

    /// As [`Request::try_redirect`], for a handler to give back.
    pub fn redirect(&mut self, uri: &[u8], args: Option<&[u8]>) -> Flow<'static> {
        self.try_redirect(uri, args).map_or_else(Flow::from, |()| Flow::Redirect)
    }

    /// As [`Request::try_redirect_named`], for a handler to give back.
    pub fn redirect_named(&mut self, name: &[u8]) -> Flow<'static> {
        self.try_redirect_named(name).map_or_else(Flow::from, |()| Flow::Redirect)
    }

    /// Starts over with another URI, internally. With `Some`, `$args` has a value even if the arguments are empty.
    pub fn try_redirect(&mut self, uri: &[u8], args: Option<&[u8]>) -> Result<(), Fault> {
        if !self.count_change() {
            return Err(Fault::RedirectCycle.log_with(self, &buf::text::encode(uri)));
        }
        self.uri.clear();
        self.uri.extend_from_slice(uri);
        self.args.clear();
        self.args.extend_from_slice(args.unwrap_or_default());
        self.uri_source = if args.is_some() { UriSource::ServerWithArgs } else { UriSource::Server };
        self.internal = true;
        self.leave_location();
        self.uri_fit = UriFit::Named;
        self.location = self.server.root.clone();
        self.resume = Resume::Server;
        Ok(())
    }

    /// Continues in a named location.
    pub fn try_redirect_named(&mut self, name: &[u8]) -> Result<(), Fault> {
        if !self.count_change() {
            return Err(Fault::NamedCycle.log_with(self, &buf::text::encode(name)));
        }
        let Some(id) = self.server.root.children.named(name) else {
            return Err(Fault::NoNamedLocation.log_with(self, &buf::text::encode(name)));
        };
        self.internal = true;
        self.leave_location();
        self.location = self.http.location(id);
        self.resume = Resume::Location;
        Ok(())
    }

    fn leave_location(&mut self) {
        self.slots.clear();
        if let Some(exchange) = &self.upstream {
            exchange.left.set(true);
        }
        if self.uri_fit == UriFit::InAlias {
            self.uri_fit = UriFit::Named;
        }
        self.response.body = Body::Empty;
        self.response.filters.clear();
    }

    /// No content handler takes the request.
    pub(crate) fn no_handler(&mut self) -> Fault {
        if self.uri.last() == Some(&b'/') {
            let path = self.path_of_uri().unwrap_or_default();
            return Fault::NoIndex.log_with(self, &buf::text::encode(&path));
        }
        Fault::NoHandler.log(self)
    }

    /// The folder of the location, as `root` or `alias` says.
    pub fn document_root(&mut self) -> Option<Vec<u8>> {
        let root = self.location.core.root.clone()?;
        Some(self.render(&root.path))
    }

    /// The file that the URI means.
    pub fn path_of_uri(&mut self) -> Result<Vec<u8>, Fault> {
        let mut path = Vec::with_capacity(128);
        self.path_into(&mut path)?;
        Ok(path)
    }

    /// Appends the file that the URI means; the length of the root's part is its own affair.
    pub fn path_into(&mut self, path: &mut Vec<u8>) -> Result<(), Fault> {
        let location = self.location.clone();
        let Some(root) = &location.core.root else { return Err(Fault::NoRoot) };
        self.check_alias()?;
        root.path.render(self, path);
        match root.alias {
            Some(Alias::Prefix(prefix)) => path.extend_from_slice(self.uri.get(prefix..).unwrap_or_default()),
            Some(Alias::All) if self.uri_fit != UriFit::InAlias => {}
            Some(Alias::All) | None => path.extend_from_slice(&self.uri),
        }
        if memchr::memchr(0, path).is_some() {
            path.clear();
        }
        Ok(())
    }

    /// An error if the location has an alias and the URI no longer begins with its name, so that no file can be found.
    pub fn check_alias(&self) -> Result<(), Fault> {
        let location = &self.location;
        let lost =
            self.uri_fit == UriFit::Changed && location.core.root.as_ref().is_some_and(|root| root.alias.is_some());
        if lost {
            return Err(Fault::LostAlias.log_with(self, &buf::text::encode(&location.name)));
        }
        Ok(())
    }

    /// Whether `$args` has a value, if only an empty one.
    pub(crate) fn has_args(&self) -> bool {
        self.uri_source == UriSource::ServerWithArgs || !self.args.is_empty()
    }

    /// Takes the query, if `$args` has a value.
    pub fn taken_args(&mut self) -> Option<Vec<u8>> {
        self.has_args().then(|| std::mem::take(&mut self.args))
    }

    /// Replaces the query.
    pub(crate) fn set_args(&mut self, value: &[u8]) {
        self.args.clear();
        self.args.extend_from_slice(value);
        self.uri_source = UriSource::ServerWithArgs;
    }

    /// All bytes sent for this request.
    pub fn bytes_sent(&self) -> u64 {
        self.payload_sent() + self.client().map_or(0, Client::sent_framing)
    }

    /// Heads and body, without what frames of HTTP/2 add to it.
    fn payload_sent(&self) -> u64 {
        self.client().map_or(0, |client| client.sent().saturating_sub(self.sent_before))
    }

    /// The same without the head.
    pub fn body_bytes_sent(&self) -> u64 {
        self.payload_sent().saturating_sub(self.header_sent)
    }

    /// The number of bytes of head and body that were read.
    pub fn request_length(&self) -> u64 {
        let head = self.h2_stream().map_or(self.parser.length() as u64, |stream| stream.head_received());
        head + self.body_before + self.body.length_on_the_wire()
    }

    /// Milliseconds since the request began.
    pub fn elapsed_ms(&self) -> u64 {
        rt::now_ms().saturating_sub(self.start_ms)
    }

    /// The status as logs show it: 0 for none, 9 for HTTP/0.9.
    pub(crate) fn status_for_log(&self) -> u16 {
        match self.response.status {
            0 if self.error_status > 0 => self.error_status,
            0 if self.line.version == 9 => 9,
            _ if self.response.headless && self.h2_stream().is_none() => 9,
            status => status,
        }
    }

    /// The field `Connection` of the response.
    pub(crate) fn connection_text(&self) -> &'static [u8] {
        if self.response.status == 101 {
            b"upgrade"
        } else if self.ending == Ending::Keep {
            b"keep-alive"
        } else {
            b"close"
        }
    }

    /// The number in `Keep-Alive: timeout=`, if that field is sent.
    pub(crate) fn keepalive_header(&self) -> Option<u64> {
        self.location.core.keepalive_timeout.1.filter(|_| self.ending == Ending::Keep)
    }

    /// Logs at level error.
    pub fn log_error(&self, message: fmt::Arguments<'_>) {
        self.log_at(Level::Error, message);
    }

    /// Logs with the request's details.
    pub fn log_at(&self, level: Level, message: fmt::Arguments<'_>) {
        let log = self.log();
        if log.enabled(level) {
            let details = |line: &mut String| Details::of(self).write(line);
            log.write_with(level, Some(self.number), message, Some(&details));
        }
    }

    /// The log of the location.
    pub fn log(&self) -> Log {
        let log = self.http.log_of(&self.location.core);
        if self.conn.debug { log.debugging() } else { log }
    }
}

enum Search {
    None,
    /// A prefix: regexes of outer levels come before it.
    Prefix(LocationId),
    /// Nothing comes before it.
    Final(LocationId),
    Redirect(LocationId),
}
