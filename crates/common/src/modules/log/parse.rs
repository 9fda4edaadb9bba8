//! `access_log`: its targets and parameters.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Word};
use engine::log::{Buffering, LogFile, LogFiles, full_path, parse_syslog};
use engine::worker::sandbox::Needs;

use super::LogProto;
use super::format::Formats;
use super::writer::{AccessLog, Target};
use crate::vars;

/// The access logs of a level.
#[derive(Clone, Default)]
pub struct AccessLogs {
    /// In the order of the file.
    pub logs: Vec<Rc<AccessLog>>,
    /// `access_log off`: the level has none, whatever else it says.
    pub off: bool,
}

/// Buffering as the configuration asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    size: usize,
    flush_ms: Option<u64>,
    gzip: Option<u8>,
}

/// How files are buffered: all logs of a file that ask for a buffer must agree, and the others use it too.
#[derive(Default)]
struct Buffered(HashMap<PathBuf, Wanted>);

/// Reads an `access_log` directive into the logs of its level.
pub(super) fn access_log<P: LogProto>(logs: &mut AccessLogs, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let name = d.arg(0);
    if name == "off" {
        logs.off = true;
        return match d.args.get(1) {
            Some(word) => Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
            None => Ok(()),
        };
    }
    let target = target::<P>(loader, d, name)?;
    let format = format::<P>(loader, d)?;
    let mut wanted = Wanted::default();
    let mut condition = None;
    for word in d.args.iter().skip(2) {
        match word.text.strip_prefix(b"if=") {
            Some(text) => condition = Some(vars::template_of::<P>(loader, d, text)?),
            None => wanted.parameter(word)?,
        }
    }
    if wanted.flush_ms.is_some() && wanted.size == 0 {
        return Err(Error::at(name, format!("no buffer is defined for access_log \"{}\"", name.lossy())));
    }
    match &target {
        Target::File(file) => buffer(loader, name, file, wanted)?,
        Target::Syslog(_) if wanted.size > 0 => return Err(Error::on(d, "logs to syslog cannot be buffered")),
        Target::Named(_) if wanted.size > 0 => {
            return Err(Error::on(d, "buffered logs cannot have variables in name"));
        }
        _ => {}
    }
    logs.logs.push(Rc::new(AccessLog { target, format, condition, warned: Cell::new(i64::MIN) }));
    Ok(())
}

/// The log of levels that say nothing: this file in the format `combined`.
pub(super) fn default_log<P: LogProto>(loader: &mut Loader<'_>, path: &Path) -> Result<AccessLogs> {
    let path = loader.env.prefix.join(path);
    let target = Target::File(loader.store.entry::<LogFiles>().get(&path));
    let format =
        Formats::<P>::find(loader, b"combined")?.ok_or_else(|| Error::new("unknown log format \"combined\""))?;
    let log = AccessLog { target, format, condition: None, warned: Cell::new(i64::MIN) };
    Ok(AccessLogs { logs: vec![Rc::new(log)], off: false })
}

fn target<P: LogProto>(loader: &mut Loader<'_>, d: &Directive, name: &Word) -> Result<Target> {
    if let Some(parameters) = name.text.strip_prefix(b"syslog:") {
        return Ok(Target::Syslog(Rc::new(parse_syslog(d, parameters)?)));
    }
    if name == "" {
        loader.store.entry::<LogFiles>().note_stderr();
        return Ok(Target::Stderr);
    }
    let path = full_path(loader, &name.text);
    if name.text.contains(&b'$') {
        let text = path.as_os_str().as_bytes().to_vec();
        loader.store.entry::<Needs>().change(&path);
        return Ok(Target::Named(vars::template_of::<P>(loader, d, &text)?));
    }
    loader.places.note(engine::log::FILE, buf::text::path(&path), d.span());
    Ok(Target::File(loader.store.entry::<LogFiles>().get(&path)))
}

fn format<P: LogProto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<super::Format>> {
    let named = d.args.get(1).filter(|word| !word.text.is_empty());
    let found = Formats::<P>::find(loader, named.map_or(b"combined", |word| &word.text[..]))?;
    found.ok_or_else(|| match named {
        Some(word) => Error::at(word, format!("unknown log format \"{}\"", word.lossy())),
        None => Error::on(d, "log format is not specified"),
    })
}

impl Wanted {
    fn parameter(&mut self, word: &Word) -> Result<()> {
        let text = &word.text[..];
        let shown = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        if let Some(value) = text.strip_prefix(b"buffer=") {
            let size = buf::parse::parse_size(value).filter(|size| *size > 0);
            let size = size.and_then(|size| usize::try_from(size).ok());
            self.size = size.ok_or_else(|| Error::at(word, format!("invalid buffer size \"{}\"", shown(value))))?;
        } else if let Some(value) = text.strip_prefix(b"flush=") {
            let time = buf::parse::parse_msec(value).filter(|time| *time > 0);
            let invalid = || Error::at(word, format!("invalid flush time \"{}\"", shown(value)));
            self.flush_ms = Some(time.ok_or_else(invalid)?);
        } else if text == b"gzip" {
            self.compress(1);
        } else if let Some(value) = text.strip_prefix(b"gzip=") {
            match value {
                [digit @ b'1'..=b'9'] => self.compress(digit - b'0'),
                _ => return Err(Error::at(word, format!("invalid compression level \"{}\"", shown(value)))),
            }
        } else {
            return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy())));
        }
        Ok(())
    }

    fn compress(&mut self, level: u8) {
        self.gzip = Some(level);
        if self.size == 0 {
            self.size = GZIP_BUFFER;
        }
    }
}

fn buffer(loader: &mut Loader<'_>, name: &Word, file: &Rc<LogFile>, wanted: Wanted) -> Result<()> {
    if wanted.size == 0 {
        return Ok(());
    }
    let buffered = loader.store.entry::<Buffered>();
    if let Some(known) = buffered.0.get(file.path()) {
        if *known == wanted {
            return Ok(());
        }
        let message = format!("access_log \"{}\" already defined with conflicting parameters", name.lossy());
        return Err(Error::at(name, message));
    }
    buffered.0.insert(file.path().to_path_buf(), wanted);
    let encoder = wanted.gzip.map(super::gzip::encoder);
    file.set_buffering(Buffering { size: wanted.size, flush_ms: wanted.flush_ms, encoder });
    Ok(())
}

/// The buffer of compressed logs, unless the configuration says otherwise.
const GZIP_BUFFER: usize = 64 << 10;
