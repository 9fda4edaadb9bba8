//! `ssi`: server-side includes, commands in pages that are run while a response passes.
//!
//! A page is a body filter (`page.rs`): it takes the text apart, runs the commands, and puts what comes of them in a
//! queue, in their order. Includes are subrequests; all that are in the queue run side by side.
//!
//! What a page sets its includes see, and the other way round: variables, blocks and captures belong to the client's request
//! (`shared.rs`). They aren't variables of the configuration, which they hide by name in pages.
//!
//! What differs from nginx: conditions may be nested; the text of a page that ends within what could begin a command isn't
//! lost; a stub's commands are run whatever the length of the response that it stands for; what pages may keep is bounded.

mod include;
mod page;
mod shared;

use std::rc::Rc;

use buf::Bytes;
use conf::values::{flag, size};
use conf::{Args, Loader, Registry, Result};
use expr::vars::Flags;
use http::config::core::{AND_IF, EVERYWHERE};
use http::config::mime::{TypeSet, add_types};
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::{Getter, Setup};
use http::server::location::Handlers;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use wire::strftime::{self, Time};

use self::page::Page;
use self::shared::Shared;

/// The module.
pub struct Ssi;

conf::table! {
    /// How pages are processed.
    pub struct SsiConf, raw SsiRaw, module "ngx_http_ssi_filter_module", level HTTP Location;

    /// Runs the commands of server-side includes in responses.
    ///
    /// Effect: holds for responses whose type is in `ssi_types`, those to subrequests included. A command is
    /// `<!--# name parameter="value" -->`; there are `include` (the response to a subrequest, by `virtual` or `file`, with
    /// `wait`, `set` and `stub`), `echo` (`var`, `default`, `encoding`), `set` (`var`, `value`), `if`, `elif`, `else` and
    /// `endif` (`expr`), `block` (`name`) and `endblock`, `config` (`timefmt`, `errmsg`). Several includes of a page run side
    /// by side. The response loses its length, its tag and its time, and ranges of it aren't served.
    ///
    /// Cost: files are read instead of being sent by the kernel; a subrequest for each `include`.
    ///
    /// Danger: whoever may write into a page may include any location of the server, `internal` ones too, and see any
    /// variable. Don't turn it on for pages that users write.
    ///
    /// ```nginx
    /// location / {
    ///     ssi on;
    /// }
    /// ```
    "ssi" in AND_IF, Args::FLAG, default "off",
        scalar(flag) ssi: bool = false;
    /// Leaves out the message that stands in a page where a command fails.
    ///
    /// Effect: the error log tells of it all the same.
    ///
    /// ```nginx
    /// location / {
    ///     ssi on;
    ///     ssi_silent_errors on;
    /// }
    /// ```
    "ssi_silent_errors" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) ssi_silent_errors: bool = false;
    /// Accepted for compatibility: buffers aren't recycled while a page refers to them.
    "ssi_ignore_recycled_buffers" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) ssi_ignore_recycled_buffers: bool = false;
    /// Accepted for compatibility: what was read to find commands is in memory, and is sent from there whatever its size.
    "ssi_min_file_chunk" in EVERYWHERE, Args::exactly(1), default "1k",
        scalar(size) ssi_min_file_chunk: usize = 1024;
    /// Sets the longest value of a parameter in commands.
    ///
    /// Form: `ssi_value_length length`
    ///
    /// - `length`: in bytes, or with `k`.
    ///
    /// Effect: a command with a longer value is an error.
    ///
    /// Cost: up to this much memory for each value of a command that is being read.
    ///
    /// ```nginx
    /// location / {
    ///     ssi on;
    ///     ssi_value_length 1k;
    /// }
    /// ```
    "ssi_value_length" in EVERYWHERE, Args::exactly(1), default "255",
        scalar(size) ssi_value_length: usize = 255;
    /// Sets the media types of responses in which commands are run, besides `text/html`, which always is.
    ///
    /// Form: `ssi_types type ...`
    ///
    /// - `type`: a media type; its parameters (`charset`) aren't compared. `*` stands for all types.
    ///
    /// Effect: holds where `ssi` is on, for the field `Content-Type` of the response.
    ///
    /// ```nginx
    /// location / {
    ///     ssi on;
    ///     ssi_types text/plain;
    /// }
    /// ```
    "ssi_types" in EVERYWHERE, Args::at_least(1), default "text/html",
        set(|raw: &mut SsiRaw, loader: &mut Loader<'_>, d: &conf::Directive| add_types(&mut raw.ssi_types, loader, d))
        ssi_types: Rc<TypeSet> = TypeSet::html();
    /// Keeps the field `Last-Modified` of responses in which commands are run.
    ///
    /// Effect: the time is that of the page, without its includes; the tag is kept too, as a weak one.
    ///
    /// Danger: caches and browsers keep a page whose includes have changed.
    ///
    /// ```nginx
    /// location / {
    ///     ssi on;
    ///     ssi_last_modified on;
    /// }
    /// ```
    "ssi_last_modified" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) ssi_last_modified: bool = false;
}

/// The form of times in pages that don't say another one.
const TIME_FORMAT: &[u8] = b"%A, %d-%b-%Y %H:%M:%S %Z";

/// The form of times in a page (`config timefmt=`).
#[derive(Default)]
struct TimeFormat(Option<Bytes>);

impl HttpModule for Ssi {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SsiConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, "ngx_http_ssi_filter_module";
            /// The local time, in the form that the command `config` of server-side includes sets.
            "date_local", Flags::NOCACHEABLE, Getter::Plain(date_local);
            /// The time in UTC, in the form that the command `config` of server-side includes sets.
            "date_gmt", Flags::NOCACHEABLE, Getter::Plain(date_gmt);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<SsiConf>();
        if conf.ssi {
            out.filters.push(Rc::new(Filter(conf)));
        }
        Ok(())
    }
}

struct Filter(Rc<SsiConf>);

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Ssi
    }

    fn on_subrequests(&self) -> bool {
        true
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let response = &mut r.response;
        let content_type = response.content_type.as_deref().unwrap_or_default();
        if response.content_length == Some(0) || !self.0.ssi_types.has(content_type) {
            return Ok(());
        }
        response.clear_length();
        response.weaken();
        if !self.0.ssi_last_modified {
            response.clear_validators();
        }
        let page = Page::new(self.0.clone(), Shared::of(r));
        r.response.filters.push(Box::new(page));
        Ok(())
    }
}

fn date_local(r: &mut Request, out: &mut Vec<u8>) -> bool {
    date(r, engine::clock::zone(), out)
}

fn date_gmt(r: &mut Request, out: &mut Vec<u8>) -> bool {
    date(r, TimeZone::UTC, out)
}

fn date(r: &Request, zone: TimeZone, out: &mut Vec<u8>) -> bool {
    let (seconds, _) = engine::clock::now();
    let Ok(now) = Timestamp::from_second(seconds) else { return false };
    let info = zone.to_offset_info(now);
    let name = if zone == TimeZone::UTC { "GMT" } else { info.abbreviation() };
    let time = Time { seconds, offset_s: info.offset().seconds(), zone: name };
    let format = r.find_slot::<TimeFormat>().and_then(|format| format.0.as_deref()).unwrap_or(TIME_FORMAT);
    strftime::format(format, time, out);
    true
}
