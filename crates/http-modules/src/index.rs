//! `index`: a request for a folder becomes one for a file in it.
//!
//! What differs from nginx: a name whose variables leave nothing of it is skipped; nginx takes the folder itself
//! for the file then, and ends in a cycle of redirects.

use std::rc::Rc;

use conf::{Args, Directive, Error, Loader, Registry, Result};
use engine::log::Errno;
use expr::vars::Template;
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::files::open_file::{Files, OpenError, errno};
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::request::variables::template_of;
use http::server::location::Handlers;
use wire::h1::Method;

/// The module.
pub struct Index;

/// The names to try.
pub type Names = Rc<Vec<Rc<Template>>>;

conf::table! {
    /// Which files stand for their folder.
    pub struct IndexConf, raw IndexRaw, module "ngx_http_index_module", level HTTP Location;

    /// Sets the files that respond to requests for a folder, in the order in which they are looked for.
    ///
    /// Form: `index file ...`
    ///
    /// - `file`: a name in the folder, which may contain variables. One that begins with `/` is a URI of the site,
    ///   isn't looked for, and should be the last.
    ///
    /// Effect: holds for requests whose URI ends with a slash. The first file that is there leads to an internal
    /// redirect to its URI, so another location may respond. If none is there, `autoindex` lists the folder, or the
    /// status is 403.
    ///
    /// Cost: a look at the file system for each name, unless `open_file_cache` has it.
    ///
    /// ```nginx
    /// location / {
    ///     root site;
    ///     index index.html index.htm;
    /// }
    /// ```
    "index" in EVERYWHERE, Args::at_least(1), default "index.html",
        set(index) index: Names = index_html();
}

fn index(raw: &mut IndexRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let mut names = raw.index.take().map_or_else(Vec::new, |names| names.to_vec());
    for (i, word) in d.args.iter().enumerate() {
        if word.text.is_empty() {
            return Err(Error::at(word, "index \"\" in \"index\" directive is invalid"));
        }
        if word.text.starts_with(b"/") && i + 1 != d.args.len() {
            loader.warn(d, Error::at(word, "only the last index in \"index\" directive should be absolute"));
        }
        names.push(template_of(loader, d, &word.text)?);
    }
    raw.index = Some(Rc::new(names));
    Ok(())
}

fn index_html() -> Names {
    let name = Template::parse(b"index.html", &mut |_| unreachable!("there is no variable in it"));
    Rc::new(name.into_iter().map(Rc::new).collect())
}

impl HttpModule for Index {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<IndexConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if !out.exclusive {
            let names = cx.set.get::<IndexConf>().index.clone();
            let files = Files::of(cx.set, cx.loader);
            out.content.push(Rc::new(IndexHandler { names, files }));
        }
        Ok(())
    }
}

struct IndexHandler {
    names: Names,
    files: Files,
}

impl PromptHandler for IndexHandler {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        if r.uri.last() != Some(&b'/') || !matches!(r.method, Method::Get | Method::Head | Method::Post) {
            return Flow::Next;
        }
        let mut path = match r.path_of_uri() {
            Ok(path) => path,
            Err(fault) => return fault.into(),
        };
        let folder = path.len();
        let mut folder_seen = false;
        for name in self.names.iter() {
            let name = r.render(name);
            if name.is_empty() {
                continue;
            }
            if name.first() == Some(&b'/') {
                let args = r.taken_args();
                return r.redirect(&name, args.as_deref());
            }
            path.truncate(folder);
            path.extend_from_slice(&name);
            let error = match self.files.info(r, &path) {
                Ok(_) => {
                    let uri = [&r.uri[..], &name].concat();
                    let args = r.taken_args();
                    return r.redirect(&uri, args.as_deref());
                }
                Err(error) => error,
            };
            if error.code() != errno::NOENT {
                return refuse(r, &path, &error);
            }
            if !folder_seen {
                // A missing folder is 404, not a folder without an index.
                if let Err(missing) = self.files.info(r, &path[..folder]) {
                    return refuse(r, &path, &missing);
                }
                folder_seen = true;
            }
        }
        Flow::Next
    }
}

fn refuse(r: &mut Request, path: &[u8], error: &OpenError) -> Flow<'static> {
    let path = buf::text::encode(path);
    let cause = Errno(&error.error);
    let fault = error.fault();
    match fault {
        Fault::MissingFile if !r.location.core.log_not_found => fault,
        Fault::MissingFile => fault.log_with(r, &format_args!("\"{path}\" is not found{cause}")),
        _ if error.code() == errno::ACCES => fault.log_with(r, &format_args!("\"{path}\" is forbidden{cause}")),
        _ => fault.log_with(r, &format_args!("{} \"{path}\" failed{cause}", error.call)),
    }
    .into()
}
