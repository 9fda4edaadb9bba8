//! `add_before_body`, `add_after_body`: the responses to subrequests, before and after the body of a response.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::Chain;
use conf::{Args, Directive, Loader, Registry, Result};
use http::body::{BodyFilter, Broken};
use http::config::core::EVERYWHERE;
use http::config::mime::{TypeSet, add_types};
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::subrequest::{SubRequest, SubResponse};
use http::server::location::Handlers;

/// The module.
pub struct Addition;

conf::table! {
    /// What is added.
    pub struct AdditionConf, raw AdditionRaw, module "ngx_http_addition_filter_module", level HTTP Location;

    /// Adds the response to a subrequest before the body of responses.
    ///
    /// Form: `add_before_body uri`
    ///
    /// - `uri`: the path of the subrequest, which goes through the locations of the server as a GET without arguments. An
    ///   empty one adds nothing, whatever the level around it says.
    ///
    /// Effect: holds for responses with status 200 whose type is in `addition_types`. Their length becomes unknown, ranges
    /// of them aren't served, and their `ETag` becomes a weak one. The response to a subrequest isn't added to.
    ///
    /// Cost: a subrequest for each response; the body waits for it.
    ///
    /// Danger: what is added may be the page of an error, if that is the response to the subrequest.
    ///
    /// ```nginx
    /// location / {
    ///     add_before_body /header.html;
    ///     add_after_body /footer.html;
    /// }
    /// ```
    "add_before_body" in EVERYWHERE, Args::exactly(1), default "\"\"",
        scalar(uri) add_before_body: Option<Rc<[u8]>> = None;
    /// Adds the response to a subrequest after the body of responses.
    ///
    /// Form: `add_after_body uri`
    ///
    /// - `uri`: as for `add_before_body`.
    ///
    /// Effect: as for `add_before_body`; the subrequest begins when the body has ended.
    ///
    /// Cost: a subrequest for each response.
    ///
    /// ```nginx
    /// location / {
    ///     add_after_body /footer.html;
    /// }
    /// ```
    "add_after_body" in EVERYWHERE, Args::exactly(1), default "\"\"",
        scalar(uri) add_after_body: Option<Rc<[u8]>> = None;
    /// Sets the media types of responses that are added to, besides `text/html`, which always is.
    ///
    /// Form: `addition_types type ...`
    ///
    /// - `type`: a media type; its parameters (`charset`) aren't compared. `*` stands for all types.
    ///
    /// Effect: holds for `add_before_body` and `add_after_body`, and for the field `Content-Type` of the response.
    ///
    /// ```nginx
    /// location /texts/ {
    ///     addition_types text/plain;
    ///     add_after_body /licence.txt;
    /// }
    /// ```
    "addition_types" in EVERYWHERE, Args::at_least(1), default "text/html",
        set(|raw: &mut AdditionRaw, loader: &mut Loader<'_>, d: &Directive| add_types(&mut raw.addition_types, loader, d))
        addition_types: Rc<TypeSet> = TypeSet::html();
}

fn uri(_: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<[u8]>>> {
    let text = &d.arg(0).text;
    Ok((!text.is_empty()).then(|| text.as_slice().into()))
}

impl HttpModule for Addition {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<AdditionConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<AdditionConf>();
        let (before, after) = (conf.add_before_body.clone(), conf.add_after_body.clone());
        if before.is_some() || after.is_some() {
            out.filters.push(Rc::new(Filter { before, after, types: conf.addition_types.clone() }));
        }
        Ok(())
    }
}

struct Filter {
    before: Option<Rc<[u8]>>,
    after: Option<Rc<[u8]>>,
    types: Rc<TypeSet>,
}

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Addition
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let response = &mut r.response;
        let content_type = response.content_type.as_deref().unwrap_or_default();
        if response.status == 200 && self.types.has(content_type) {
            response.clear_length();
            response.weaken();
            response.filters.push(Box::new(Added {
                before: self.before.clone().map(Part::Uri),
                after: self.after.clone().map(Part::Uri),
                held: Chain::new(),
                ended: false,
            }));
        }
        Ok(())
    }
}

/// The body of a response that is added to.
struct Added {
    before: Option<Part>,
    after: Option<Part>,
    /// What comes of the body while `before` does.
    held: Chain,
    ended: bool,
}

/// What is added, until all of it has been.
enum Part {
    /// It hasn't begun.
    Uri(Rc<[u8]>),
    /// It has.
    Response(SubResponse),
}

impl Part {
    /// Appends what there is of it to `out`; empties `part` at its end.
    fn poll(
        part: &mut Option<Part>,
        r: &mut Request,
        cx: &mut Context<'_>,
        out: &mut Chain,
    ) -> Poll<std::result::Result<(), Broken>> {
        if let Some(Part::Uri(uri)) = part {
            let ask = SubRequest { uri, with_body: true, ..SubRequest::default() };
            *part = Some(Part::Response(r.sub_request(&ask).map_err(|_| Broken)?));
        }
        let Some(Part::Response(response)) = part else { return Poll::Ready(Ok(())) };
        while !ready!(response.poll_into(r, cx, out))? {
            if !out.is_empty() {
                // It goes out first: the pipeline asks again after that.
                return Poll::Pending;
            }
        }
        *part = None;
        Poll::Ready(Ok(()))
    }
}

impl BodyFilter for Added {
    fn apply(&mut self, mut input: Chain, end: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        self.ended = end;
        match self.before {
            Some(_) => self.held.append(&mut input),
            None => out.append(&mut input),
        }
        Ok(())
    }

    fn reads(&self) -> bool {
        false
    }

    fn poll_waiting(
        &mut self,
        r: &mut Request,
        cx: &mut Context<'_>,
        out: &mut Chain,
    ) -> Poll<std::result::Result<(), Broken>> {
        ready!(Part::poll(&mut self.before, r, cx, out))?;
        out.append(&mut self.held);
        match self.ended {
            true => Part::poll(&mut self.after, r, cx, out),
            false => Poll::Ready(Ok(())),
        }
    }
}
