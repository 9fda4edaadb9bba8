//! Values of the core's directives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use conf::values::{flag, invalid_value, offset, size};
use conf::{Directive, Error, Loader, Result};
use expr::vars::Template;

use crate::request::variables;

/// `satisfy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    /// Every access module must allow the request.
    All,
    /// One is enough.
    Any,
}

/// `server_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTokens {
    /// The name alone.
    Off,
    /// Name and version.
    On,
    /// Name, version and build.
    Build,
}

/// `if_modified_since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// A response is always taken as modified.
    Off,
    /// The times must be equal.
    Exact,
    /// The response must not be younger.
    Before,
}

/// `lingering_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingering {
    /// Close at once.
    Off,
    /// Read on for a while if the client may still be sending.
    On,
    /// Read on in any case.
    Always,
}

/// `client_body_in_file_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyInFile {
    /// Only bodies that don't fit into the buffer.
    Off,
    /// Always, and the file is kept.
    On,
    /// Always, and the file is removed with the request.
    Clean,
}

/// `aio`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aio {
    /// Files are read in the worker.
    Off,
    /// Asynchronous reads by the kernel: accepted, but files are read in the worker.
    On,
    /// In threads of the pool with this name.
    Threads(Rc<str>),
}

/// `disable_symlinks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisableSymlinks {
    /// Off, on, or only where link and target have different owners.
    pub mode: Symlinks,
    /// The leading part of the path that is not checked.
    pub from: Option<Rc<Template>>,
}

/// Which symbolic links are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// None.
    Allowed,
    /// All.
    Denied,
    /// Those of another owner than their target.
    IfNotOwner,
}

/// `root` or `alias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The folder.
    pub path: Rc<Template>,
    /// The part of the URI that it replaces; `None` if the whole URI is appended to it.
    pub alias: Option<Alias>,
    /// Its text in the file.
    pub text: Rc<str>,
}

/// The part of the URI that an `alias` replaces. The location in which it stands decides that, also for nested ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// The first bytes of the URI: the location's name.
    Prefix(usize),
    /// All of it: the location is found by a regex.
    All,
}

/// `open_file_cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCache {
    /// How many elements.
    pub max: usize,
    /// After how many seconds without use an element is dropped.
    pub inactive: u64,
}

/// Conditions: texts that hold if they are neither empty nor `0`.
pub type Predicates = Rc<[Rc<Template>]>;

/// A folder for temporary files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempPath {
    /// The folder.
    pub path: Rc<PathBuf>,
    /// The lengths of the names of folders in it.
    pub levels: Rc<[usize]>,
}

impl TempPath {
    /// A folder without levels, relative to the prefix.
    pub fn new(path: &str) -> TempPath {
        TempPath { path: Rc::new(path.into()), levels: Rc::new([]) }
    }
}

/// A folder for temporary files, with the levels of folders in it.
pub fn temp_path(loader: &mut Loader<'_>, d: &Directive) -> Result<TempPath> {
    let path = loader.env.prefix.join(OsStr::from_bytes(&d.arg(0).text));
    loader.places.note(crate::body::temp::FOLDER, buf::text::path(&path), d.span());
    let levels = d.args[1..]
        .iter()
        .map(|word| match &word.text[..] {
            b"10" => Ok(10),
            [digit @ b'1'..=b'9'] => Ok(usize::from(digit - b'0')),
            _ => Err(conf::values::invalid(d, word)),
        })
        .collect::<Result<Vec<_>>>()?;
    // The names of files have no more digits.
    if levels.iter().sum::<usize>() > 10 {
        return Err(conf::values::invalid(d, d.arg(d.args.len() - 1)));
    }
    Ok(TempPath { path: Rc::new(path), levels: levels.into() })
}

/// The first argument as it stands.
pub fn bytes(_: &mut Loader<'_>, d: &Directive) -> Result<buf::Bytes> {
    Ok(buf::Bytes::from(d.arg(0).text.to_vec()))
}

/// Conditions: texts that hold if they are neither empty nor `0`.
pub fn predicates(loader: &mut Loader<'_>, d: &Directive) -> Result<Predicates> {
    d.args.iter().map(|word| variables::template_of(loader, d, &word.text)).collect()
}

/// `send_lowat`, which Linux doesn't support: the words of the warning are nginx's.
pub fn send_lowat(loader: &mut Loader<'_>, d: &Directive) -> Result<usize> {
    let bytes = size(loader, d)?;
    let message = format!("\"{}\" is not supported, ignored", d.name.lossy());
    loader.warn(d, Error::on(d, message));
    Ok(bytes)
}

/// A size of a memory pool, within nginx's bounds.
pub(crate) fn pool_size(loader: &mut Loader<'_>, d: &Directive) -> Result<usize> {
    let bytes = size(loader, d)?;
    if bytes < LEAST_POOL {
        return Err(Error::at(d.arg(0), format!("the pool size must be no less than {LEAST_POOL}")));
    }
    if bytes % POOL_UNIT != 0 {
        return Err(Error::at(d.arg(0), format!("the pool size must be a multiple of {POOL_UNIT}")));
    }
    Ok(bytes)
}

/// nginx's bounds for the size of a pool.
const LEAST_POOL: usize = 112;
const POOL_UNIT: usize = 16;

pub(super) fn aio(loader: &mut Loader<'_>, d: &Directive) -> Result<Aio> {
    let word = d.arg(0);
    let name = match &word.text[..] {
        b"off" => return Ok(Aio::Off),
        b"on" => {
            loader.no_effect(d, "files are read in the worker, or with \"aio threads\" in threads");
            return Ok(Aio::On);
        }
        b"threads" => return Ok(Aio::Threads("default".into())),
        text => text.strip_prefix(b"threads=").ok_or_else(|| conf::values::invalid(d, word))?,
    };
    let name = String::from_utf8_lossy(name);
    if name.contains('$') {
        // The pool is chosen for each request; the variables must exist now.
        variables::template_of(loader, d, name.as_bytes())?;
    } else {
        engine::cycle::thread_pool::refer(loader, &name, conf::Span { line: d.end.line, ..word.span });
    }
    Ok(Aio::Threads((&*name).into()))
}

pub(super) fn directio(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<u64>> {
    if *d.arg(0) == "off" {
        return Ok(None);
    }
    let least = offset(loader, d)?;
    loader.no_effect(d, "files are read through the page cache");
    Ok(Some(least))
}

/// A flag without an effect: if it has the value `asks`, a warning says why nothing happens.
pub fn idle_flag(loader: &mut Loader<'_>, d: &Directive, asks: bool, why: &str) -> Result<bool> {
    let value = flag(loader, d)?;
    if value == asks {
        loader.no_effect(d, why);
    }
    Ok(value)
}

pub(super) fn keepalive_timeout(_: &mut Loader<'_>, d: &Directive) -> Result<(u64, Option<u64>)> {
    let invalid = || conf::values::invalid(d, d.arg(0));
    let timeout = buf::parse::parse_msec(&d.arg(0).text).ok_or_else(invalid)?;
    let header = match d.args.get(1) {
        Some(word) => Some(buf::parse::parse_sec(&word.text).ok_or_else(invalid)?),
        None => None,
    };
    Ok((timeout, header))
}

pub(super) fn file_cache(_: &mut Loader<'_>, d: &Directive) -> Result<Option<FileCache>> {
    let (mut max, mut inactive) = (0, 60);
    for word in &d.args {
        let invalid = || Error::at(word, format!("invalid \"open_file_cache\" parameter \"{}\"", word.lossy()));
        if let Some(value) = word.text.strip_prefix(b"max=") {
            max = buf::parse::parse_number(value).filter(|n| *n > 0).ok_or_else(invalid)?;
        } else if let Some(value) = word.text.strip_prefix(b"inactive=") {
            inactive = buf::parse::parse_sec(value).ok_or_else(invalid)?;
        } else if *word == "off" {
            return Ok(None);
        } else {
            return Err(invalid());
        }
    }
    if max == 0 {
        return Err(Error::on(d, "\"open_file_cache\" must have the \"max\" parameter"));
    }
    Ok(Some(FileCache { max: max as usize, inactive }))
}

pub(super) fn disable_symlinks(loader: &mut Loader<'_>, d: &Directive) -> Result<DisableSymlinks> {
    let (mut mode, mut from) = (None, None);
    for word in &d.args {
        match &word.text[..] {
            b"off" => mode = Some(Symlinks::Allowed),
            b"on" => mode = Some(Symlinks::Denied),
            b"if_not_owner" => mode = Some(Symlinks::IfNotOwner),
            text => match text.strip_prefix(b"from=") {
                Some(path) => from = Some(variables::template_of(loader, d, path)?),
                None => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
            },
        }
    }
    let Some(mode) = mode else {
        return Err(Error::on(d, "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter"));
    };
    if mode == Symlinks::Allowed && from.is_some() {
        return Err(Error::on(d, "duplicate parameter \"off\""));
    }
    Ok(DisableSymlinks { mode, from })
}

/// Permissions of files, as `dav_access` and `…_store_access` give them.
pub fn permissions(_: &mut Loader<'_>, d: &Directive) -> Result<u32> {
    let mut mode = 0;
    for word in &d.args {
        let text = word.lossy();
        let (shift, rights) = match text.split_once(':') {
            Some(("user", rights)) => (6, rights),
            Some(("group", rights)) => (3, rights),
            Some(("all", rights)) => (0, rights),
            _ => return Err(invalid_value(word)),
        };
        mode |= match rights {
            "rw" => 6 << shift,
            "r" => 4 << shift,
            _ => return Err(invalid_value(word)),
        };
    }
    Ok(if mode & 0o700 == 0 { mode | 0o600 } else { mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions() {
        let registry = conf::Registry::new();
        let (sources, tree, _) = conf::parse::parse(
            "x",
            "a user:rw; a group:r; a user:r all:rw; a user:rw group:rw all:r; a all:r; a user:x; a other:r; a user;",
        );
        let mut loader = Loader::new(&registry, conf::Env::default(), sources);
        let modes: Vec<_> = tree.iter().map(|d| super::permissions(&mut loader, d).ok()).collect();
        let some = [0o600, 0o640, 0o406, 0o664, 0o604].map(Some);
        assert_eq!(modes, [&some[..], &[None, None, None]].concat());
    }
}
