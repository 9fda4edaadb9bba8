//! `…_cache_path` and `…_cache`: the caches of a configuration.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use ::cache::place::Portions;
use ::cache::{Cache, Settings};
use buf::parse::{parse_msec, parse_number, parse_offset, parse_sec, parse_size};
use conf::{Directive, Error, Loader, Result, Word};
use engine::cycle::zones::{self, Origin, SharedZone};
use http::body::temp;
use http::config::core::TempPath;
use http::request::variables::template_of;

use super::conf::Zone;

/// A cache by its name.
#[derive(Clone)]
pub struct Named {
    /// Where it is named.
    place: conf::Span,
    zone: Rc<SharedZone>,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.zone.name())
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        match (self, other) {
            (Zone::Off, Zone::Off) => true,
            (Zone::Named(one), Zone::Named(other)) => one.zone == other.zone,
            _ => false,
        }
    }
}

/// The caches of a configuration, by module and name.
#[derive(Default, Clone)]
pub struct Caches(pub HashMap<(&'static str, Rc<str>), Rc<Cache>>);

/// What the places of the caches' folders are noted by.
const PATHS: &str = "cache path";

/// The smallest zone for keys: two pages, as in nginx.
const SMALLEST: u64 = 8192;

/// nginx's name of the module whose directives begin so.
pub(super) fn owner(name: &[u8]) -> &'static str {
    match name.split(|byte| *byte == b'_').next() {
        Some(b"fastcgi") => "ngx_http_fastcgi_module",
        Some(b"uwsgi") => "ngx_http_uwsgi_module",
        Some(b"scgi") => "ngx_http_scgi_module",
        _ => "ngx_http_proxy_module",
    }
}

/// Reads `…_cache`.
pub(crate) fn zone(loader: &mut Loader<'_>, d: &Directive) -> Result<Zone> {
    let word = d.arg(0);
    if *word == "off" {
        return Ok(Zone::Off);
    }
    if word.text.contains(&b'$') {
        return Ok(Zone::Variable(template_of(loader, d, &word.text)?));
    }
    let zone = zones::declare(loader, word, &word.text, 0, ::cache::owner(owner(&d.name.text)))?;
    Ok(Zone::Named(Named { place: word.span, zone }))
}

impl Named {
    /// The cache, if a path was declared for it; `prefix` is that of the directives.
    pub(super) fn find(&self, loader: &mut Loader<'_>, prefix: &str) -> Result<Rc<Cache>> {
        let caches = loader.store.entry::<Caches>();
        let found = caches.0.values().find(|cache| Rc::ptr_eq(cache.keys.zone(), &self.zone));
        found.cloned().ok_or_else(|| {
            let message = format!("\"{prefix}cache\" zone \"{}\" is unknown", self.zone.name());
            Error::new(message).or_at(Some(self.place))
        })
    }
}

/// Reads `…_cache_path`.
pub(crate) fn cache_path(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let mut path = folder(loader, d.arg(0));
    if path.as_os_str().len() > 1 && path.as_os_str().as_bytes().ends_with(b"/") {
        path = path.components().collect();
    }
    let mut read = Read::new(path);
    for word in d.args.iter().skip(1) {
        read.parameter(word)?;
    }
    let name = String::from_utf8_lossy(&d.name.text).into_owned();
    let Some((word, zone, size)) = read.zone.filter(|(_, zone, _)| !zone.is_empty()) else {
        return Err(Error::on(d, format!("\"{name}\" must have \"keys_zone\" parameter")));
    };
    let mut settings = read.settings;
    settings.purger = read.purges.then_some(read.purger);
    let owner = owner(&d.name.text);
    let declared = zones::declare(loader, &word, &zone, size, ::cache::owner(owner))?;
    let caches = loader.store.entry::<Caches>();
    let key = (owner, declared.name().clone());
    if caches.0.contains_key(&key) {
        return Err(Error::on(d, format!("duplicate zone \"{}\"", declared.name())));
    }
    if let Some(other) = caches.0.values().find(|cache| cache.settings.path == settings.path) {
        let path = buf::text::path(&other.settings.path);
        let first = loader.places.get(PATHS, &path).map(|first| loader.sources.place(first)).unwrap_or_default();
        return Err(Error::on(d, format!("the same path name \"{path}\" used{first} and")));
    }
    loader.places.note(PATHS, buf::text::path(&settings.path), d.span());
    declared.set_data(Rc::new(settings.clone()));
    declared.set_meaning(&format!("{} {:?}", buf::text::path(&settings.path), settings.levels));
    declared.on_start(same_folder);
    let mut place = TempPath { path: Rc::new(settings.path.clone()), levels: Rc::new([]) };
    let cache = Rc::new(Cache::new(declared, settings));
    caches.0.insert(key, cache);
    temp::register(loader, &mut place);
    Ok(())
}

/// A zone that is kept over a reload has to be that of the same files.
fn same_folder(zone: &SharedZone, origin: Origin<'_>) -> std::result::Result<(), String> {
    let old = origin.declaration().and_then(|old| old.data::<Settings>());
    let (Some(new), Some(old)) = (zone.data::<Settings>(), old) else { return Ok(()) };
    let name = zone.name();
    if new.path != old.path {
        let (new, old) = (buf::text::path(&new.path), buf::text::path(&old.path));
        return Err(format!(
            "cache \"{name}\" uses the \"{new}\" cache path while previously it used the \"{old}\" cache path"
        ));
    }
    if new.levels != old.levels {
        return Err(format!("cache \"{name}\" had previously different levels"));
    }
    Ok(())
}

fn folder(loader: &Loader<'_>, word: &Word) -> PathBuf {
    loader.env.prefix.join(OsStr::from_bytes(&word.text))
}

/// The parameters as they are read.
struct Read {
    settings: Settings,
    zone: Option<(Word, Vec<u8>, usize)>,
    purges: bool,
    purger: Portions,
}

impl Read {
    fn new(path: PathBuf) -> Read {
        let portions = Portions { files: 100, sleep_ms: 50, threshold_ms: 200 };
        let settings = Settings {
            path,
            levels: Vec::new(),
            own_temp: false,
            inactive: 600,
            max_size: None,
            min_free: 0,
            manager: portions,
            loader: portions,
            purger: None,
        };
        let purger = Portions { files: 10, sleep_ms: 50, threshold_ms: 50 };
        Read { settings, zone: None, purges: false, purger }
    }

    fn parameter(&mut self, word: &Word) -> Result<()> {
        let unknown = || Error::at(word, format!("invalid parameter \"{}\"", word.lossy()));
        let at = word.text.iter().position(|byte| *byte == b'=').ok_or_else(unknown)?;
        let (name, value) = word.text.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        let text = String::from_utf8_lossy(name).into_owned();
        let invalid = |what: &str| Error::at(word, format!("invalid {what} value \"{}\"", word.lossy()));
        let switch = |value: &[u8]| match value {
            b"on" => Ok(true),
            b"off" => Ok(false),
            _ => {
                let message = format!("invalid {text} value \"{}\", it must be \"on\" or \"off\"", word.lossy());
                Err(Error::at(word, message))
            }
        };
        let settings = &mut self.settings;
        match name {
            b"levels" => {
                settings.levels =
                    levels(value).ok_or_else(|| Error::at(word, format!("invalid \"levels\" \"{}\"", word.lossy())))?
            }
            b"use_temp_path" => settings.own_temp = !switch(value)?,
            b"keys_zone" => self.zone = Some(keys_zone(word, value)?),
            b"inactive" => settings.inactive = parse_sec(value).ok_or_else(|| invalid("inactive"))?,
            b"max_size" => settings.max_size = Some(parse_offset(value).ok_or_else(|| invalid("max_size"))?),
            b"min_free" => settings.min_free = parse_offset(value).ok_or_else(|| invalid("min_free"))?,
            b"purger" => self.purges = switch(value)?,
            _ => {
                let (portions, rest) = if let Some(rest) = name.strip_prefix(b"manager_") {
                    (&mut settings.manager, rest)
                } else if let Some(rest) = name.strip_prefix(b"loader_") {
                    (&mut settings.loader, rest)
                } else if let Some(rest) = name.strip_prefix(b"purger_") {
                    (&mut self.purger, rest)
                } else {
                    return Err(unknown());
                };
                match rest {
                    b"files" => {
                        let files = parse_number(value).and_then(|files| usize::try_from(files).ok());
                        portions.files = files.ok_or_else(|| invalid(&text))?;
                    }
                    b"sleep" => portions.sleep_ms = parse_msec(value).ok_or_else(|| invalid(&text))?,
                    b"threshold" => portions.threshold_ms = parse_msec(value).ok_or_else(|| invalid(&text))?,
                    _ => return Err(unknown()),
                }
            }
        }
        Ok(())
    }
}

/// One to three lengths, each 1 or 2.
fn levels(value: &[u8]) -> Option<Vec<usize>> {
    let levels: Option<Vec<usize>> = value
        .split(|byte| *byte == b':')
        .map(|level| match level {
            b"1" => Some(1),
            b"2" => Some(2),
            _ => None,
        })
        .collect();
    levels.filter(|levels| levels.len() <= 3)
}

fn keys_zone(word: &Word, value: &[u8]) -> Result<(Word, Vec<u8>, usize)> {
    let invalid = || Error::at(word, format!("invalid keys zone size \"{}\"", word.lossy()));
    let colon = value.iter().position(|byte| *byte == b':').ok_or_else(invalid)?;
    let (name, size) = value.split_at(colon);
    let size = parse_size(size.get(1..).unwrap_or_default()).ok_or_else(invalid)?;
    if size < SMALLEST {
        return Err(Error::at(word, format!("keys zone \"{}\" is too small", word.lossy())));
    }
    Ok((word.clone(), name.to_vec(), usize::try_from(size).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_levels() {
        for (text, expect) in [
            ("1", Some(vec![1])),
            ("1:2", Some(vec![1, 2])),
            ("2:2:2", Some(vec![2, 2, 2])),
            ("1:2:2:1", None),
            ("3", None),
            ("0", None),
            ("1:", None),
            ("", None),
        ] {
            assert_eq!(levels(text.as_bytes()), expect, "{text}");
        }
    }

    #[test]
    fn parameters() {
        let mut read = Read::new("/c".into());
        let word = |text: &str| Word { text: text.into(), ..Word::default() };
        let words = "levels=1:2 keys_zone=a:1m inactive=1h max_size=1g min_free=1k use_temp_path=off manager_files=5 \
                     manager_sleep=5 loader_threshold=7ms purger=on purger_files=3";
        words.split(' ').for_each(|text| read.parameter(&word(text)).expect("it is right"));
        let Read { settings, zone, purges, purger } = &mut read;
        assert_eq!((settings.inactive, settings.max_size, settings.min_free), (3600, Some(1 << 30), 1024));
        assert!(settings.own_temp && *purges && purger.files == 3 && settings.manager.sleep_ms == 5000);
        assert_eq!((settings.manager.files, settings.loader.threshold_ms), (5, 7));
        assert_eq!(zone.as_ref().map(|(_, name, size)| (&name[..], *size)), Some((&b"a"[..], 1 << 20)));
        for (text, expect) in [
            ("x", "invalid parameter \"x\""),
            ("x=1", "invalid parameter \"x=1\""),
            ("levels=4", "invalid \"levels\" \"levels=4\""),
            ("keys_zone=a", "invalid keys zone size \"keys_zone=a\""),
            ("keys_zone=a:4k", "keys zone \"keys_zone=a:4k\" is too small"),
            ("inactive=x", "invalid inactive value \"inactive=x\""),
            ("use_temp_path=x", "invalid use_temp_path value \"use_temp_path=x\", it must be \"on\" or \"off\""),
            ("manager_files=x", "invalid manager_files value \"manager_files=x\""),
        ] {
            assert_eq!(read.parameter(&word(text)).err().map(|error| error.message).as_deref(), Some(expect), "{text}");
        }
    }
}
