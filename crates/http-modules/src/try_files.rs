//! `try_files`: the first of several files that is there answers.
//!
//! As in nginx the directive isn't inherited: that of a server holds for requests that no location takes.

use std::rc::Rc;

use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use engine::log::{Errno, Level};
use expr::vars::Template;
use http::config::core::Alias;
use http::fault::Fault;
use http::files::open_file::{Files, Found, Kind as FileKind, errno};
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, PromptHandler};
use http::request::variables::template_of;
use http::request::{Request, UriFit};
use http::server::location::Handlers;

/// The module.
pub struct TryFiles;

conf::table! {
    /// What is tried.
    pub struct TryFilesConf, raw TryFilesRaw, module "ngx_http_try_files_module", level HTTP Location;

    /// Looks for files in the given order, and responds with the first that is there.
    ///
    /// Form: `try_files file ... uri | =code`
    ///
    /// - `file`: the path of a file below `root` or `alias`, with variables; one that ends with a slash must be a
    ///   folder.
    /// - `uri`: where the request is redirected internally if none is there; it isn't checked. A name that begins with
    ///   `@` is a named location, which keeps the request's URI.
    /// - `=code`: the status of the response if none is there.
    ///
    /// Effect: the URI becomes that of the file, and the location that `try_files` stands in responds with it. In a
    /// server it holds for requests that no location takes. It isn't inherited.
    ///
    /// Cost: a look at the file system for each name, unless `open_file_cache` has it.
    ///
    /// Danger: a last parameter that is a file leads to an internal redirect, and if its location has the same
    /// `try_files` to a loop, which ends with status 500 after ten rounds.
    ///
    /// ```nginx
    /// location / {
    ///     try_files $uri $uri/ /index.html;
    /// }
    /// location /images/ {
    ///     try_files $uri =404;
    /// }
    /// ```
    "try_files" in Context::SERVER.or(Context::LOCATION), Args::at_least(2), default none,
        here(try_files) tries: Tries;
}

/// What a `try_files` says.
#[derive(Clone)]
pub struct Tries {
    tries: Rc<[Try]>,
    last: Rc<Last>,
}

struct Try {
    name: Rc<Template>,
    directory: bool,
}

enum Last {
    Status(u16),
    Uri(Rc<Template>),
}

fn try_files(loader: &mut Loader<'_>, d: &Directive) -> Result<Tries> {
    let Some((last, front)) = d.args.split_last() else { return Err(Error::on(d, "invalid number of arguments")) };
    let mut tries = Vec::with_capacity(front.len());
    for word in front {
        let name = word.text.strip_suffix(b"/");
        let name_of_file = name.unwrap_or(&word.text);
        tries.push(Try { name: template_of(loader, d, name_of_file)?, directory: name.is_some() });
    }
    let last = match last.text.strip_prefix(b"=") {
        Some(code) => {
            let status = buf::parse::parse_number(code).filter(|code| *code <= 999);
            let status = status.ok_or_else(|| Error::at(last, format!("invalid code \"{}\"", last.lossy())))?;
            Last::Status(status as u16)
        }
        None => Last::Uri(template_of(loader, d, &last.text)?),
    };
    Ok(Tries { tries: tries.into(), last: Rc::new(last) })
}

impl HttpModule for TryFiles {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<TryFilesConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if let Some(tries) = cx.set.get::<TryFilesConf>().tries.clone() {
            let files = Files::of(cx.set, cx.loader);
            out.precontent.push(Rc::new(TryHandler { tries, files }));
        }
        Ok(())
    }
}

struct TryHandler {
    tries: Tries,
    files: Files,
}

/// How a location's folder and a name make a path.
struct Base {
    /// The folder, with the name's place after it.
    path: Vec<u8>,
    folder: usize,
    /// How many bytes of the location's name an alias replaces; `None` for `root` and for aliases of regexes.
    alias: Option<usize>,
    /// Whether it is the alias of a location that is found by regex.
    regex_alias: bool,
}

impl Base {
    fn of(r: &mut Request) -> std::result::Result<Base, Fault> {
        r.check_alias()?;
        let path = r.document_root().ok_or(Fault::NoRoot)?;
        let (alias, regex_alias) = match r.location.core.root.as_ref().and_then(|root| root.alias) {
            Some(Alias::Prefix(prefix)) => (Some(prefix), false),
            Some(Alias::All) => (None, true),
            None => (None, false),
        };
        Ok(Base { folder: path.len(), path, alias, regex_alias })
    }

    /// The value of a parameter. With an alias, one with variables loses the location's part, if the URI's stands in it.
    fn value<'v>(&self, r: &mut Request, template: &'v Template, scratch: &'v mut Vec<u8>) -> &'v [u8] {
        if let Some(text) = template.is_const() {
            return text;
        }
        let value = template.value(r, scratch);
        let start = r.uri.get(..self.alias.unwrap_or(0)).unwrap_or_default();
        value.strip_prefix(start).unwrap_or(value)
    }

    /// Puts the path of `name` together.
    fn join(&mut self, name: &[u8]) {
        self.path.truncate(self.folder);
        self.path.extend_from_slice(name);
    }

    fn name(&self) -> &[u8] {
        self.path.get(self.folder..).unwrap_or_default()
    }
}

impl PromptHandler for TryHandler {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        let mut base = match Base::of(r) {
            Ok(base) => base,
            Err(fault) => return fault.into(),
        };
        let mut scratch = Vec::new();
        for one in self.tries.tries.iter() {
            let name = base.value(r, &one.name, &mut scratch);
            base.join(name);
            let Some(found) = self.look(r, &base.path) else { continue };
            if (found.kind == FileKind::Directory) == one.directory {
                enter(r, &base, one.directory);
                return Flow::Next;
            }
        }
        match &*self.tries.last {
            // No answer may have a status below 200.
            Last::Status(0..200) => Flow::Status(500),
            Last::Status(status) => Flow::Status(*status),
            Last::Uri(template) => {
                let target = base.value(r, template, &mut scratch);
                fall_back(r, target)
            }
        }
    }
}

impl TryHandler {
    fn look(&self, r: &mut Request, path: &[u8]) -> Option<Rc<Found>> {
        match self.files.info(r, path) {
            Ok(found) => Some(found),
            Err(error) => {
                if !matches!(error.code(), 0 | errno::NOENT | errno::NOTDIR | errno::NAMETOOLONG) {
                    let path = buf::text::encode(path);
                    r.log_at(Level::Crit, format_args!("{} \"{path}\" failed{}", error.call, Errno(&error.error)));
                }
                None
            }
        }
    }
}

/// The request goes on with the name that was found.
fn enter(r: &mut Request, base: &Base, directory: bool) {
    if base.regex_alias {
        if directory {
            return;
        }
        // The alias is a whole folder here: what was found is appended to it.
        r.uri_fit = UriFit::InAlias;
    }
    let prefix = base.alias.unwrap_or(0);
    let mut uri = r.uri.get(..prefix).unwrap_or_default().to_vec();
    uri.extend_from_slice(base.name());
    if r.uri != uri {
        r.note_rewritten();
    }
    r.uri = uri;
}

fn fall_back(r: &mut Request, target: &[u8]) -> Flow<'static> {
    if target.first() == Some(&b'@') {
        return r.redirect_named(target);
    }
    let (uri, args) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    r.redirect(uri, Some(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let mut base = Base { path: b"/root".to_vec(), folder: 5, alias: None, regex_alias: false };
        for (name, expect) in [("/b", "/root/b"), ("", "/root"), ("/c/", "/root/c/")] {
            base.join(name.as_bytes());
            assert_eq!((String::from_utf8_lossy(&base.path), base.name()), (expect.into(), name.as_bytes()));
        }
    }
}
