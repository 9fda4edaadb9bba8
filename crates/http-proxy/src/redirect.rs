//! `proxy_redirect`: changes of `Location` and `Refresh`.

use std::rc::Rc;

use conf::{Directive, Error, Loader, Result};
use expr::vars::Template;
use http::request::Request;
use http::request::variables::{HttpRegex, regex, template_of};

/// What one `proxy_redirect` says.
pub enum Redirect {
    /// `off`
    Off,
    /// `default`: what the location and its `proxy_pass` say.
    Default,
    /// A rule.
    Rule(Rc<Rule>),
}

/// The rules of a directive at one level; none at all is `off`.
pub type Rules<T> = Rc<Vec<Rc<T>>>;

/// Adds a rule to those of its level. `off` (no rule) can only stand alone.
pub fn add<T>(rules: &mut Option<Rules<T>>, rule: Option<Rc<T>>, d: &Directive) -> Result<()> {
    match (rules.as_mut(), rule) {
        (None, rule) => *rules = Some(Rc::new(rule.into_iter().collect())),
        (Some(known), Some(rule)) if !known.is_empty() => {
            Rc::get_mut(known).expect("it isn't shared while the level is read").push(rule);
        }
        _ => return Err(conf::table::duplicate(d)),
    }
    Ok(())
}

/// What is replaced, and by what.
pub struct Rule {
    /// What a value begins with, or matches.
    pub pattern: Pattern,
    /// What takes its place.
    pub replacement: Rc<Template>,
}

/// What a value is compared with.
#[derive(PartialEq)]
pub enum Pattern {
    /// Its beginning, or (with `whole`) all of it.
    Text(Rc<Template>),
    /// A regex; the replacement takes the place of the whole value.
    Regex(HttpRegex),
}

/// Reads the directive.
pub fn parse(loader: &mut Loader<'_>, d: &Directive) -> Result<Redirect> {
    let first = d.arg(0);
    let Some(second) = d.args.get(1) else {
        return match &first.text[..] {
            b"off" => Ok(Redirect::Off),
            b"default" => Ok(Redirect::Default),
            _ => Err(Error::at(first, format!("invalid parameter \"{}\"", first.lossy()))),
        };
    };
    let pattern = pattern(loader, d, first)?;
    let replacement = template_of(loader, d, &second.text)?;
    Ok(Redirect::Rule(Rc::new(Rule { pattern, replacement })))
}

/// `~regex`, `~*regex` or text.
pub fn pattern(loader: &mut Loader<'_>, d: &Directive, word: &conf::Word) -> Result<Pattern> {
    match word.text.strip_prefix(b"~") {
        Some(rest) => {
            let (source, caseless) = rest.strip_prefix(b"*").map_or((rest, false), |rest| (rest, true));
            Ok(Pattern::Regex(regex(loader, word, source, caseless)?))
        }
        None => Ok(Pattern::Text(template_of(loader, d, &word.text)?)),
    }
}

impl Rule {
    /// The rule of `proxy_redirect default`.
    pub fn fixed(pattern: &[u8], replacement: &[u8]) -> Rule {
        Rule {
            pattern: Pattern::Text(Rc::new(Template::constant(pattern))),
            replacement: Rc::new(Template::constant(replacement)),
        }
    }

    /// The value with its part from `from` on changed, if the rule is about it.
    pub fn apply(&self, r: &mut Request, value: &[u8], from: usize) -> Option<Vec<u8>> {
        let (front, subject) = value.split_at_checked(from)?;
        let mut out = front.to_vec();
        match &self.pattern {
            Pattern::Text(pattern) => {
                let mut scratch = Vec::new();
                let pattern = pattern.value(r, &mut scratch);
                let rest = subject.strip_prefix(pattern)?.to_vec();
                self.replacement.render(r, &mut out);
                out.extend_from_slice(&rest);
            }
            Pattern::Regex(regex) => {
                if !regex.exec(r, subject).unwrap_or(false) {
                    return None;
                }
                self.replacement.render(r, &mut out);
            }
        }
        Some(out)
    }
}

/// Where the URL begins in a value of `Refresh`: after `url=`.
pub(crate) fn refresh_url(value: &[u8]) -> Option<usize> {
    let at = value.windows(4).position(|window| window.eq_ignore_ascii_case(b"url="));
    at.map(|at| at + 4)
}
