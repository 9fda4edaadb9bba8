//! `error_page`.

use std::rc::Rc;

use conf::{Directive, Error, Loader, Result};
use expr::vars::Template;

use crate::request::variables::template_of;

/// One `error_page` for one status.
#[derive(Debug)]
pub struct ErrorPage {
    /// The statuses it is for.
    pub statuses: Vec<u16>,
    /// `=code`: the status to answer with; `=` alone is 0, the target's own status.
    pub answer: Option<u16>,
    /// The URI, redirect target or named location.
    pub target: Rc<Template>,
    /// The query of a fixed URI.
    pub args: Option<Vec<u8>>,
}

/// Reads the directive.
pub fn parse(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<ErrorPage>> {
    let (last, front) = d.args.split_last().ok_or_else(|| Error::on(d, "invalid number of arguments"))?;
    let (answer, codes) = match front.split_last() {
        Some((word, codes)) if word.text.starts_with(b"=") => {
            let text = &word.text[1..];
            if codes.is_empty() {
                return Err(Error::at(word, format!("invalid value \"{}\"", word.lossy())));
            }
            let code = if text.is_empty() { Some(0) } else { buf::parse::parse_number(text).map(|n| n as u16) };
            let code = code.ok_or_else(|| Error::at(word, format!("invalid value \"{}\"", word.lossy())))?;
            (Some(code), codes)
        }
        _ => (None, front),
    };
    let mut statuses = Vec::new();
    for word in codes {
        let code = buf::parse::parse_number(&word.text).filter(|n| *n > 0);
        let code = code.ok_or_else(|| Error::at(word, format!("invalid value \"{}\"", word.lossy())))?;
        if code == 499 {
            return Err(Error::at(word, "invalid value \"499\""));
        }
        if !(300..=599).contains(&code) {
            let message = format!("value \"{}\" must be between 300 and 599", word.lossy());
            return Err(Error::at(word, message));
        }
        // nginx answers these two with 400 whatever page is shown.
        statuses.push(code as u16);
    }
    let (uri, args) = match memchr::memchr(b'?', &last.text) {
        Some(at) if last.text.starts_with(b"/") && !last.text.contains(&b'$') => last.text.split_at(at),
        _ => (&last.text[..], &b""[..]),
    };
    let target = template_of(loader, d, uri)?;
    Ok(Rc::new(ErrorPage { statuses, answer, target, args: args.get(1..).map(<[u8]>::to_vec) }))
}
