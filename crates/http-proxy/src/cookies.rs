//! `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`: changes of `Set-Cookie`.

use std::rc::Rc;

use conf::{Directive, Error, Loader, Result};
use expr::vars::Template;
use http::request::Request;
use http::request::variables::{HttpRegex, regex, template_of};

use crate::redirect::{Pattern, pattern};

/// What is replaced in an attribute.
#[derive(PartialEq)]
pub struct CookieReplace {
    pattern: Pattern,
    replacement: Rc<Template>,
    domain: bool,
}

/// Flags of cookies.
#[derive(PartialEq)]
pub struct CookieFlags {
    cookie: CookieName,
    flags: Vec<Rc<Template>>,
}

#[derive(PartialEq)]
enum CookieName {
    Text(Rc<Template>),
    Regex(HttpRegex),
}

/// Reads `proxy_cookie_domain`; no rule for `off`. A leading dot doesn't count, nor does the case of letters.
pub fn domain(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<CookieReplace>>> {
    let mut d = d.clone();
    for word in d.args.iter_mut().filter(|word| word.text.starts_with(b".")) {
        word.text.remove(0);
    }
    if d.args.len() == 2
        && let Some(first) = d.args.first_mut()
        && first.text.starts_with(b"~")
        && !first.text.starts_with(b"~*")
    {
        first.text.insert(1, b'*');
    }
    rule(loader, &d, true)
}

/// Reads `proxy_cookie_path`; no rule for `off`.
pub fn path(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<CookieReplace>>> {
    rule(loader, d, false)
}

fn rule(loader: &mut Loader<'_>, d: &Directive, domain: bool) -> Result<Option<Rc<CookieReplace>>> {
    let first = d.arg(0);
    let Some(second) = d.args.get(1) else {
        return match &first.text[..] {
            b"off" => Ok(None),
            _ => Err(Error::at(first, format!("invalid parameter \"{}\"", first.lossy()))),
        };
    };
    let pattern = pattern(loader, d, first)?;
    let replacement = template_of(loader, d, &second.text)?;
    Ok(Some(Rc::new(CookieReplace { pattern, replacement, domain })))
}

/// Reads `proxy_cookie_flags`; no rule for `off`.
pub fn flags(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<CookieFlags>>> {
    let first = d.arg(0);
    if d.args.len() == 1 {
        return match &first.text[..] {
            b"off" => Ok(None),
            _ => Err(Error::at(first, format!("invalid parameter \"{}\"", first.lossy()))),
        };
    }
    let cookie = match first.text.strip_prefix(b"~") {
        Some(source) => CookieName::Regex(regex(loader, first, source, true)?),
        None => CookieName::Text(template_of(loader, d, &first.text)?),
    };
    let mut flags = Vec::new();
    for word in &d.args[1..] {
        let known = FLAGS.contains(&&*word.lossy().to_ascii_lowercase());
        if !known && !word.text.contains(&b'$') {
            return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy())));
        }
        flags.push(template_of(loader, d, &word.text)?);
    }
    Ok(Some(Rc::new(CookieFlags { cookie, flags })))
}

const FLAGS: &[&str] = &[
    "secure",
    "nosecure",
    "httponly",
    "nohttponly",
    "samesite",
    "samesite=strict",
    "samesite=lax",
    "samesite=none",
    "nosamesite",
];

impl CookieReplace {
    /// The attribute's new value.
    fn apply(&self, r: &mut Request, value: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match &self.pattern {
            Pattern::Text(text) => {
                let text = r.render(text);
                let text = text.strip_prefix(b".").filter(|_| self.domain).unwrap_or(&text);
                let rest = if self.domain {
                    value.eq_ignore_ascii_case(text).then_some(&b""[..])?
                } else {
                    value.strip_prefix(text)?
                };
                self.replacement.render(r, &mut out);
                out.extend_from_slice(rest);
            }
            Pattern::Regex(regex) => {
                if !regex.exec(r, value).unwrap_or(false) {
                    return None;
                }
                self.replacement.render(r, &mut out);
            }
        }
        Some(out)
    }
}

/// An attribute of a cookie as the field has it: name, and value with what stands before it.
struct Attribute {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Blanks around names and values aren't part of them.
fn split(value: &[u8]) -> Vec<Attribute> {
    let parts = value.split(|b| *b == b';').map(|part| match part.iter().position(|b| *b == b'=') {
        Some(at) => Attribute { name: trimmed(&part[..at]), value: Some(trimmed(&part[at + 1..])) },
        None => Attribute { name: trimmed(part), value: None },
    });
    parts.collect()
}

fn trimmed(text: &[u8]) -> Vec<u8> {
    let from = text.iter().position(|byte| *byte != b' ').unwrap_or(text.len());
    let to = text.iter().rposition(|byte| *byte != b' ').map_or(from, |at| at + 1);
    text[from..to].to_vec()
}

fn join(attributes: &[Attribute]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, attribute) in attributes.iter().enumerate() {
        if n > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(&attribute.name);
        if let Some(value) = &attribute.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}

/// The new value of a `Set-Cookie` field, if any rule is about it.
pub fn rewrite(
    r: &mut Request,
    value: &[u8],
    domains: &[Rc<CookieReplace>],
    paths: &[Rc<CookieReplace>],
    flags: &[Rc<CookieFlags>],
) -> Option<Vec<u8>> {
    let mut attributes = split(value);
    // What has no value is no cookie.
    let first = attributes.first().filter(|first| first.value.is_some())?;
    let name = first.name.clone();
    let mut changed = false;
    for attribute in attributes.iter_mut().skip(1) {
        let (rules, strip) = match &attribute.name[..] {
            name if name.eq_ignore_ascii_case(b"domain") => (domains, true),
            name if name.eq_ignore_ascii_case(b"path") => (paths, false),
            _ => continue,
        };
        let Some(value) = &attribute.value else { continue };
        let value = value.clone();
        for rule in rules {
            // A leading dot of a domain isn't compared, and stays; a regex sees it.
            let dots = usize::from(strip && value.starts_with(b".") && matches!(rule.pattern, Pattern::Text(_)));
            let (dot, subject) = value.split_at(dots);
            if let Some(new) = rule.apply(r, subject) {
                attribute.value = Some([dot, &new].concat());
                changed = true;
                break;
            }
        }
    }
    for rule in flags {
        if rule.is_about(r, &name) {
            let mut flags: Vec<_> = rule.flags.iter().map(|flag| r.render(flag).to_ascii_lowercase()).collect();
            // New ones come in the order Secure, HttpOnly, SameSite.
            flags.sort_by_key(|flag| {
                [&b"secure"[..], b"httponly"].iter().position(|name| flag.ends_with(name)).unwrap_or(2)
            });
            for flag in &flags {
                set_flag(&mut attributes, flag);
            }
            changed = true;
            break;
        }
    }
    changed.then(|| join(&attributes))
}

impl CookieFlags {
    fn is_about(&self, r: &mut Request, name: &[u8]) -> bool {
        match &self.cookie {
            CookieName::Text(text) => r.render(text).eq_ignore_ascii_case(name),
            CookieName::Regex(regex) => regex.exec(r, name).unwrap_or(false),
        }
    }
}

fn set_flag(attributes: &mut Vec<Attribute>, flag: &[u8]) {
    let (name, value, on) = match flag {
        b"secure" => ("Secure", None, true),
        b"nosecure" => ("Secure", None, false),
        b"httponly" => ("HttpOnly", None, true),
        b"nohttponly" => ("HttpOnly", None, false),
        b"samesite" => ("SameSite", None, true),
        b"samesite=strict" => ("SameSite", Some("Strict"), true),
        b"samesite=lax" => ("SameSite", Some("Lax"), true),
        b"samesite=none" => ("SameSite", Some("None"), true),
        b"nosamesite" => ("SameSite", None, false),
        _ => return,
    };
    let same = |attribute: &Attribute| attribute.name.eq_ignore_ascii_case(name.as_bytes());
    let value = value.map(|value| value.as_bytes().to_vec());
    if !on {
        let mut first = true;
        attributes.retain(|attribute| std::mem::take(&mut first) || !same(attribute));
        return;
    }
    match attributes.iter_mut().skip(1).find(|attribute| same(attribute)) {
        Some(attribute) if name == "SameSite" => *attribute = Attribute { name: name.into(), value },
        Some(_) => {}
        None => attributes.push(Attribute { name: name.as_bytes().to_vec(), value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_cookies() {
        for (cookie, flag, expect) in [
            ("a=b", "secure", "a=b; Secure"),
            ("a=b; secure", "secure", "a=b; secure"),
            ("a=b; Secure; path=/", "nosecure", "a=b; path=/"),
            ("a=b;HttpOnly", "nohttponly", "a=b"),
            ("a=b; samesite=Lax", "samesite=strict", "a=b; SameSite=Strict"),
            ("secure=b", "nosecure", "secure=b"),
            ("a=b; samesite", "samesite=lax", "a=b; SameSite=Lax"),
            ("a=b", "other", "a=b"),
            ("a = b ;Path = /x; Secure ; HttpOnly = y", "httponly", "a=b; Path=/x; Secure; HttpOnly=y"),
            ("a=b; Secure=; SameSite = Lax", "samesite=none", "a=b; Secure=; SameSite=None"),
            ("a=  b c  ;;\tPath\t= /", "secure", "a=b c; ; \tPath\t=/; Secure"),
        ] {
            let mut attributes = split(cookie.as_bytes());
            set_flag(&mut attributes, flag.as_bytes());
            assert_eq!(String::from_utf8_lossy(&join(&attributes)), expect, "{cookie} {flag}");
        }
    }
}
