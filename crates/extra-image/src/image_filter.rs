//! `image_filter`: pictures are checked, measured, turned and made smaller.
//!
//! The request is made once more as a subrequest, from its content on; what that gives is taken into memory, and changed in
//! a thread of the pool `default`, so that the worker goes on with others meanwhile. What differs from nginx: WebP is
//! written without loss, and only GIF interlaced; conditions of the request are judged after the picture was made; answers
//! of `return` and to other methods than GET and HEAD stay as they are.

use std::future::poll_fn;
use std::rc::Rc;

use buf::{Bytes, Chain, Piece};
use conf::values::{flag, invalid_parameter, invalid_value, size};
use conf::{Args, Context, Directive, Loader, Registry, Result, Word};
use expr::vars::Template;
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, Handler};
use http::request::Request;
use http::request::subrequest::SubResponse;
use http::request::variables::template_of;
use http::response::Body;
use http::server::location::Handlers;
use wire::h1::{KnownHeader, Method};

use crate::picture::{self, Bounds, Format, Plan, Turn};

/// The module.
pub struct ImageFilter;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// What is done to pictures.
    pub struct ImageConf, raw ImageRaw, module "ngx_http_image_filter_module", level HTTP Location;

    /// Checks pictures in JPEG, GIF, PNG and WebP, or changes them.
    ///
    /// Form: `image_filter off | test | size | rotate 90 | 180 | 270 | resize width height | crop width height`
    ///
    /// - `off`: responses stay as they are.
    /// - `test`: what isn't a picture is answered with status 415.
    /// - `size`: the response is the picture's width, height and type as JSON, or `{}`.
    /// - `rotate`: pictures are turned counter-clockwise by so many degrees. It may stand beside `resize`, which is done
    ///   before, or `crop`, of which the cut is done afterwards.
    /// - `resize`: larger pictures are made smaller in proportion, until they fit into `width` and `height`.
    /// - `crop`: larger pictures are made smaller in proportion until one side fits; what is too much of the other is cut
    ///   off on both sides.
    /// - `width`, `height`: in pixels; `-` is no bound. They, and the degrees, may contain variables.
    ///
    /// Effect: what isn't a picture, can't be read, or is larger than `image_filter_buffer`, is answered with status 415.
    /// Pictures that fit already are sent as they are. A changed one has a weak `ETag`. Requests of other methods than GET
    /// and HEAD, and what `return` answers, aren't affected.
    ///
    /// Cost: a picture is taken into memory with all of its pixels, four bytes each, and changed in a thread; that takes
    /// processor time for each request, so a cache in front is of good use.
    ///
    /// ```nginx
    /// location /thumbnails/ {
    ///     root site;
    ///     image_filter resize 150 100;
    ///     image_filter_jpeg_quality 80;
    /// }
    /// ```
    "image_filter" in Context::LOCATION, Args::between(1, 3), default "off",
        set(image_filter) image_filter: Rc<Action> = Rc::default();
    /// Sets the longest file that is taken for a picture.
    ///
    /// Form: `image_filter_buffer size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: longer responses are answered with status 415.
    ///
    /// ```nginx
    /// image_filter_buffer 10m;
    /// ```
    "image_filter_buffer" in EVERYWHERE, ONE, default "1m",
        scalar(size) image_filter_buffer: usize = 1 << 20;
    /// Writes changed pictures interlaced, so that they appear as a whole while they are loaded.
    ///
    /// Effect: holds for GIF only.
    ///
    /// ```nginx
    /// image_filter_interlace on;
    /// ```
    "image_filter_interlace" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) image_filter_interlace: bool = false;
    /// Sets the quality of changed JPEG pictures.
    ///
    /// Form: `image_filter_jpeg_quality quality`
    ///
    /// - `quality`: from 1 to 100; it may contain variables.
    ///
    /// Effect: a higher quality makes larger files; above 95 they only become larger.
    ///
    /// ```nginx
    /// image_filter_jpeg_quality 85;
    /// ```
    "image_filter_jpeg_quality" in EVERYWHERE, ONE, default "75",
        scalar(positive) image_filter_jpeg_quality: Number = Number::Fixed(75);
    /// Sharpens changed pictures.
    ///
    /// Form: `image_filter_sharpen percent`
    ///
    /// - `percent`: how much; it may exceed 100, `0` doesn't sharpen. It may contain variables.
    ///
    /// Effect: edges become clearer, which reducing has blurred.
    ///
    /// ```nginx
    /// image_filter_sharpen 20;
    /// ```
    "image_filter_sharpen" in EVERYWHERE, ONE, default "0",
        scalar(number) image_filter_sharpen: Number = Number::Fixed(0);
    /// Keeps the transparent color of changed pictures that have a palette: GIF, and PNG with one.
    ///
    /// Effect: `off` makes them opaque. The transparency of other PNG and WebP pictures is kept in any case.
    ///
    /// ```nginx
    /// image_filter_transparency off;
    /// ```
    "image_filter_transparency" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) image_filter_transparency: bool = true;
    /// Accepted for compatibility: WebP pictures are written without loss.
    "image_filter_webp_quality" in EVERYWHERE, ONE, default "80",
        scalar(positive) image_filter_webp_quality: Number = Number::Fixed(80);
}

/// What `image_filter` says.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Action {
    kind: Kind,
    width: Option<Side>,
    height: Option<Side>,
    angle: Option<Rc<Template>>,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
enum Kind {
    #[default]
    Off,
    Test,
    Size,
    Rotate,
    Resize,
    Crop,
}

/// A side of a picture: `-` is no bound.
type Side = Rc<Template>;

/// A number, or what gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// The same for all requests.
    Fixed(u32),
    /// With variables.
    Variable(Rc<Template>),
}

fn number(loader: &mut Loader<'_>, d: &Directive) -> Result<Number> {
    let template = template_of(loader, d, &d.arg(0).text)?;
    match template.is_const() {
        Some(text) => parse(text).map(Number::Fixed).ok_or_else(|| invalid_value(d.arg(0))),
        None => Ok(Number::Variable(template)),
    }
}

fn positive(loader: &mut Loader<'_>, d: &Directive) -> Result<Number> {
    match number(loader, d)? {
        Number::Fixed(0) => Err(invalid_value(d.arg(0))),
        number => Ok(number),
    }
}

fn parse(text: &[u8]) -> Option<u32> {
    buf::parse::parse_number(text).and_then(|number| u32::try_from(number).ok())
}

fn image_filter(raw: &mut ImageRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let action = Rc::make_mut(raw.image_filter.get_or_insert_with(Rc::default));
    let kind = match (&d.arg(0).text[..], d.args.len()) {
        (b"off", 1) => Kind::Off,
        (b"test", 1) => Kind::Test,
        (b"size", 1) => Kind::Size,
        (b"rotate", 2) => Kind::Rotate,
        (b"resize", 3) => Kind::Resize,
        (b"crop", 3) => Kind::Crop,
        _ => return Err(invalid_parameter(d.arg(0))),
    };
    match kind {
        Kind::Rotate => {
            action.angle = Some(checked(loader, d, d.arg(1), |text| Turn::of_degrees(text).is_some())?);
            // Beside these it is a part of what they do.
            if matches!(action.kind, Kind::Resize | Kind::Crop) {
                return Ok(());
            }
        }
        Kind::Resize | Kind::Crop => {
            let fits = |text: &[u8]| side(text).is_some();
            action.width = Some(checked(loader, d, d.arg(1), fits)?);
            action.height = Some(checked(loader, d, d.arg(2), fits)?);
        }
        Kind::Off | Kind::Test | Kind::Size => {}
    }
    action.kind = kind;
    Ok(())
}

/// A value that is valid, if no variable decides that.
fn checked(loader: &mut Loader<'_>, d: &Directive, word: &Word, valid: impl Fn(&[u8]) -> bool) -> Result<Rc<Template>> {
    let template = template_of(loader, d, &word.text)?;
    match template.is_const() {
        Some(text) if !valid(text) => Err(invalid_parameter(word)),
        _ => Ok(template),
    }
}

/// A side's bound: none, or one above zero.
fn side(text: &[u8]) -> Option<Option<u32>> {
    if text == b"-" { Some(None) } else { parse(text).filter(|side| *side > 0).map(Some) }
}

impl HttpModule for ImageFilter {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<ImageConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<ImageConf>();
        if conf.image_filter.kind != Kind::Off {
            out.precontent.push(Rc::new(Filter(conf)));
        }
        Ok(())
    }
}

struct Filter(Rc<ImageConf>);

impl Handler for Filter {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if !matches!(r.method, Method::Get | Method::Head) {
            return Flow::Next;
        }
        match r.clone_request(|content| content.method = Method::Get) {
            Ok(content) => Flow::wait(self.answer(r, content)),
            Err(fault) => fault.into(),
        }
    }
}

/// The status for what isn't a picture.
const UNSUPPORTED: Flow<'static> = Flow::Status(415);

impl Filter {
    async fn answer(&self, r: &mut Request, mut content: SubResponse) -> Flow<'static> {
        poll_fn(|cx| content.poll_head(cx)).await;
        let Some(made) = content.request() else { return UNSUPPORTED };
        let most = self.0.image_filter_buffer as u64;
        copy_head(r, made);
        if matches!(r.response.status, 304 | 408 | 444 | 499) {
            return Flow::Status(r.response.status);
        }
        let is_large = r.response.content_length.is_some_and(|length| length > most);
        // A picture isn't compressed once more.
        if is_large || r.response.headers.find(KnownHeader::ContentEncoding).is_some() {
            return UNSUPPORTED;
        }
        let Ok((_, body)) = content.whole(r, most).await else { return UNSUPPORTED };
        match self.0.image_filter.kind {
            Kind::Size => measured(r, &joined(body)),
            Kind::Off | Kind::Test => match Format::of(&beginning(&body)) {
                Some(format) => picture_of(r, format, body),
                None => UNSUPPORTED,
            },
            Kind::Rotate | Kind::Resize | Kind::Crop => self.changed(r, joined(body)).await,
        }
    }

    async fn changed(&self, r: &mut Request, bytes: Vec<u8>) -> Flow<'static> {
        let Some((format, plan)) = Format::of(&bytes).zip(self.plan(r)) else { return UNSUPPORTED };
        let changed = r.http.worker.in_thread(move || (picture::change(&bytes, &plan), bytes)).await;
        let (changed, bytes) = match changed {
            Ok(changed) => changed,
            Err(error) => {
                let fault = Fault::FailedFile.log_with(r, &format_args!("picture can't be changed: {error}"));
                return fault.into();
            }
        };
        match changed {
            Ok(None) => picture_of(r, format, Chain::from(Bytes::from(bytes))),
            Ok(Some(file)) => {
                r.response.weaken();
                picture_of(r, format, Chain::from(Bytes::from(file)))
            }
            Err(error) => {
                r.log_error(format_args!("{} picture can't be read: {error}", format.name()));
                UNSUPPORTED
            }
        }
    }

    /// What is to be done, if the variables give that.
    fn plan(&self, r: &mut Request) -> Option<Plan> {
        let action = &self.0.image_filter;
        let bounds = match action.kind {
            Kind::Resize | Kind::Crop => Some(Bounds {
                width: side(&r.render(action.width.as_ref()?))?,
                height: side(&r.render(action.height.as_ref()?))?,
                crop: action.kind == Kind::Crop,
            }),
            _ => None,
        };
        let turn = action.angle.as_ref().and_then(|angle| Turn::of_degrees(&r.render(angle)));
        if action.kind == Kind::Rotate && turn.is_none() {
            return None;
        }
        let mut value = |number: &Number| match number {
            Number::Fixed(number) => Some(*number),
            Number::Variable(template) => parse(&r.render(template)),
        };
        let quality = value(&self.0.image_filter_jpeg_quality).filter(|quality| *quality > 0)?;
        Some(Plan {
            bounds,
            turn,
            jpeg_quality: quality.min(100) as u8,
            sharpen: value(&self.0.image_filter_sharpen)?,
            transparency: self.0.image_filter_transparency,
            interlace: self.0.image_filter_interlace,
        })
    }
}

/// Takes over the head of the response that has the picture.
fn copy_head(r: &mut Request, made: &Request) {
    r.upstream.clone_from(&made.upstream);
    let (to, from) = (&mut r.response, &made.response);
    to.status = from.status;
    to.status_line.clone_from(&from.status_line);
    to.content_length = from.content_length;
    to.last_modified = from.last_modified;
    to.headers.clone_from(&from.headers);
    (to.own_date, to.own_server) = (from.own_date, from.own_server);
}

/// The body in one piece. Its parts are freed as they are copied.
fn joined(mut body: Chain) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() as usize);
    // The bodies of subrequests are read: there are no files in them.
    while let Some(Piece::Bytes(part)) = body.pop() {
        bytes.extend_from_slice(&part);
    }
    bytes
}

/// The first bytes of the body, by which formats are known.
fn beginning(body: &Chain) -> Vec<u8> {
    let parts = body.pieces().iter().filter_map(|piece| match piece {
        Piece::Bytes(part) => Some(&part[..]),
        Piece::File(_) => None,
    });
    parts.flatten().take(picture::SIGNATURE).copied().collect()
}

/// Makes a picture the response.
fn picture_of(r: &mut Request, format: Format, body: Chain) -> Flow<'static> {
    respond(r, format.media_type(), body)
}

/// Makes the size of a picture the response.
fn measured(r: &mut Request, bytes: &[u8]) -> Flow<'static> {
    let text = match picture::size(bytes) {
        Some((format, width, height)) => {
            let name = format.name();
            format!("{{ \"img\" : {{ \"width\": {width}, \"height\": {height}, \"type\": \"{name}\" }} }}\r\n")
        }
        None => "{}\r\n".to_owned(),
    };
    (r.response.status, r.response.status_line) = (200, None);
    r.response.clear_validators();
    respond(r, "application/json", Chain::from(Bytes::from(text.into_bytes())))
}

fn respond(r: &mut Request, kind: &'static str, body: Chain) -> Flow<'static> {
    let response = &mut r.response;
    response.content_type = Some(Bytes::from_static(kind.as_bytes()));
    response.content_length = Some(body.len());
    response.headers.remove(KnownHeader::AcceptRanges);
    response.body = Body::Chain(body);
    Flow::Respond
}
