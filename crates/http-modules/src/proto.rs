//! HTTP as a protocol of the modules in `common`.

use std::fmt;
use std::rc::Rc;

use common::Proto;
use conf::{Directive, Loader, Result, Word};
use engine::log::Level;
use expr::vars::Template;
use http::request::Request;
use http::request::variables::{self, HttpRegex};

/// HTTP.
pub struct HttpProto;

impl Proto for HttpProto {
    type Session = Request;
    type Regex = HttpRegex;

    fn template(loader: &mut Loader<'_>, d: &Directive, text: &[u8]) -> Result<Rc<Template>> {
        variables::template_of(loader, d, text)
    }

    fn regex(loader: &mut Loader<'_>, word: &Word, pattern: &[u8], caseless: bool) -> Result<HttpRegex> {
        variables::regex(loader, word, pattern, caseless)
    }

    fn matches(regex: &HttpRegex, r: &mut Request, subject: &[u8]) -> bool {
        regex.exec(r, subject).unwrap_or(false)
    }

    fn log(r: &Request, level: Level, message: fmt::Arguments<'_>) {
        r.log_at(level, message);
    }
}
