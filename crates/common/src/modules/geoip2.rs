//! `geoip2`: what databases of MaxMind's newer kind (`.mmdb`) say of an address, under the names of the module
//! ngx_http_geoip2_module.
//!
//! Differs from that module: a database that has changed is read by a thread of its own, so that no request waits for it.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use conf::values::conf_path;
use conf::{Args, Directive, Error, Level, Loader, Registry, Result};
use engine::log::Level as LogLevel;
use engine::worker::sandbox::Needs;
use expr::vars::{Flags, Template};
use wire::mmdb::{self, Step};

use super::geoip::client;
use super::realip::Forwarders;
use super::{Module, each_line};
use crate::vars::text::{number, put};
use crate::vars::{self, Definition, Getter, Setup, Variable};
use crate::{Proto, Session};

/// The module.
pub struct Geoip2;

conf::table! {
    /// No values: each block defines variables.
    pub struct Geoip2Conf of P: Proto, raw Geoip2Raw,
        at P::tables().geoip2, block P::PLACES.block, level Level::Main;

    /// Defines variables with what a database says of an address.
    ///
    /// Form: `geoip2 file`
    ///
    /// - `file`: a database of MaxMind's newer kind (`.mmdb`).
    /// - `$name [default=text] [source=$address] path …`: a line of the block: a variable, and where its value stands in a
    ///   record, such as `country iso_code` or `subdivisions 0 names en`. `text` is its value where the database has none;
    ///   `$address` is looked up in place of the client's address.
    /// - `$name metadata field`: a variable with what is known of the database: `build_epoch`, `last_check`, `last_change`,
    ///   in seconds since 1970.
    /// - `auto_reload time`: how often it is checked whether the file has changed, so that it is read again; without it
    ///   only a reload reads it.
    ///
    /// Effect: a variable without a value and a default is empty. Each block needs a database of its own.
    ///
    /// Cost: the database is kept in memory, by each worker once it has been read again. Each variable is a search in it.
    ///
    /// ```nginx
    /// geoip2 cities.mmdb {
    ///     auto_reload 60m;
    ///     $country default=ZZ country iso_code;
    ///     $city city names en;
    /// }
    /// ```
    "geoip2" in P::PLACES.block, Args::exactly(1).block(), default none,
        block(geoip2::<P>);
}

/// The proxies that name clients.
pub type Proxies = Rc<RefCell<Forwarders>>;

/// The proxies of the configuration that is being read.
pub fn proxies<P: Proto>(loader: &mut Loader<'_>) -> Proxies {
    loader.store.entry::<Setup<P>>().part::<Part>().proxies.clone()
}

#[derive(Default)]
struct Part {
    proxies: Proxies,
    /// The files so far.
    files: Vec<PathBuf>,
}

impl<P: Proto> Module<P> for Geoip2 {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<Geoip2Conf<P>>();
    }
}

fn geoip2<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let word = d.arg(0);
    let path = conf_path(loader, d)?;
    let part = loader.store.entry::<Setup<P>>().part::<Part>();
    if part.files.contains(&path) {
        return Err(Error::at(word, format!("Duplicate GeoIP2 mmdb - {}", word.lossy())));
    }
    part.files.push(path.clone());
    let proxies = part.proxies.clone();
    let failed = |why: &str| Error::at(word, format!("MMDB_open(\"{}\") failed - {why}", word.lossy()));
    let database = Database::open(&path).map_err(|why| failed(&why))?;
    let database = Rc::new(database);
    each_line(loader, d, |loader, line| {
        if line.name == "auto_reload" {
            return auto_reload(&database, line);
        }
        let what = What::parse::<P>(loader, line)?;
        let flags = match what {
            What::Field { .. } => Flags::CHANGEABLE,
            What::Metadata(_) => Flags::CHANGEABLE | Flags::NOCACHEABLE,
        };
        let ask = Ask { database: database.clone(), proxies: proxies.clone(), what };
        let text = "What the database of `geoip2` says of the client's address. Empty if it has nothing, and there is no \
                    default.";
        let module = P::tables().geoip2.module();
        let definition = Definition { getter: Getter::Object(Rc::new(ask)), setter: None, module, text };
        vars::define::<P>(loader, &line.name, flags, definition)
    })?;
    if database.interval_ms.get() > 0 {
        // A new file takes the old one's place, so the folder counts.
        loader.store.entry::<Needs>().read(path.parent().unwrap_or(&path));
    }
    Ok(())
}

fn auto_reload(database: &Database, line: &Directive) -> Result<()> {
    let [word] = &line.args[..] else { return Err(Error::on(line, "invalid number of arguments in \"auto_reload\"")) };
    let seconds = buf::parse::parse_sec(&word.text).filter(|seconds| *seconds > 0);
    let seconds =
        seconds.ok_or_else(|| Error::at(word, format!("invalid interval for auto_reload \"{}\"", word.lossy())))?;
    database.interval_ms.set(seconds.saturating_mul(1000));
    Ok(())
}

/// What a variable holds.
enum What {
    Metadata(Metadata),
    Field {
        path: Vec<Step>,
        default: Option<Box<[u8]>>,
        /// The address that is looked up, if it isn't the client's.
        source: Option<Rc<Template>>,
    },
}

#[derive(Clone, Copy)]
enum Metadata {
    Built,
    Checked,
    Changed,
}

impl What {
    fn parse<P: Proto>(loader: &mut Loader<'_>, line: &Directive) -> Result<What> {
        if let [first, field] = &line.args[..]
            && *first == "metadata"
        {
            let known = [
                ("build_epoch", Metadata::Built),
                ("last_check", Metadata::Checked),
                ("last_change", Metadata::Changed),
            ];
            let found = known.into_iter().find(|(name, _)| field == name);
            let unknown = || Error::at(field, format!("unknown metadata field \"{}\"", field.lossy()));
            return found.map(|(_, metadata)| What::Metadata(metadata)).ok_or_else(unknown);
        }
        let (mut path, mut default, mut source) = (Vec::new(), None, None);
        for word in &line.args {
            match &word.text[..] {
                text if path.is_empty() && text.starts_with(b"default=") => default = Some(text[8..].into()),
                text if path.is_empty() && text.starts_with(b"source=") => {
                    source = Some(vars::variable_in::<P>(loader, word, &text[7..])?);
                }
                _ => path.push(Step::of(&word.lossy())),
            }
        }
        if path.is_empty() {
            return Err(Error::on(line, "invalid number of arguments in \"geoip2\" block"));
        }
        Ok(What::Field { path, default, source })
    }
}

/// A variable.
struct Ask {
    database: Rc<Database>,
    proxies: Proxies,
    what: What,
}

impl<P: Proto> Variable<P> for Ask {
    fn value(&self, session: &mut P::Session, out: &mut Vec<u8>) -> bool {
        Database::refresh(&self.database, session);
        let (path, default, source) = match &self.what {
            What::Metadata(metadata) => return number(out, self.database.metadata(*metadata)),
            What::Field { path, default, source } => (path, default, source),
        };
        let address = match source {
            None => Some(client(session, &self.proxies)),
            Some(source) => {
                let text = vars::render(session, source);
                std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok())
            }
        };
        address.is_some_and(|address| self.database.records.borrow().field(address, path, out))
            || default.as_ref().is_some_and(|default| put(out, default))
    }
}

/// A database, and what is known of its file.
struct Database {
    path: PathBuf,
    records: RefCell<Rc<mmdb::Database>>,
    /// How often the file is looked at; 0 for never.
    interval_ms: Cell<u64>,
    /// When it is looked at next, in the loop's milliseconds.
    next_ms: Cell<u64>,
    /// When the file that was read was changed.
    stamp: Cell<Option<SystemTime>>,
    checked: Cell<u64>,
    changed: Cell<u64>,
    /// Why the file couldn't be read again: for the log of the next request.
    failure: RefCell<Option<String>>,
}

/// What is read of a file: the database, and when the file was changed.
type Read = (mmdb::Database, Option<SystemTime>);

fn read(path: &Path) -> std::result::Result<Read, String> {
    // Before it is read: what changes meanwhile is read again.
    let stamp = stamp(path);
    let file = std::fs::read(path).map_err(|error| error.to_string())?;
    let records = mmdb::Database::new(file).map_err(|error| error.to_string())?;
    Ok((records, stamp))
}

fn stamp(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

impl Database {
    fn open(path: &Path) -> std::result::Result<Database, String> {
        let (records, stamp) = read(path)?;
        let now = engine::clock::now().0 as u64;
        Ok(Database {
            path: path.to_owned(),
            records: RefCell::new(Rc::new(records)),
            interval_ms: Cell::new(0),
            next_ms: Cell::new(0),
            stamp: Cell::new(stamp),
            checked: Cell::new(now),
            changed: Cell::new(now),
            failure: RefCell::default(),
        })
    }

    /// Looks at the file if it is time, and reads it again if it has changed: in a thread, while this database serves on.
    fn refresh<S: Session>(this: &Rc<Database>, session: &S) {
        let (interval, now) = (this.interval_ms.get(), rt::now_ms());
        if interval == 0 {
            return;
        }
        if let Some(why) = this.failure.take() {
            session.log_at(LogLevel::Error, format_args!("MMDB_open(\"{}\") failed - {why}", this.path.display()));
        }
        if now < this.next_ms.get() {
            return;
        }
        this.next_ms.set(now + interval);
        this.checked.set(engine::clock::now().0 as u64);
        let found = stamp(&this.path);
        if found.is_none() || found == this.stamp.get() {
            return;
        }
        session.log_at(LogLevel::Info, format_args!("reload of \"{}\" begins", this.path.display()));
        let (database, path) = (this.clone(), this.path.clone());
        // One reading at a time.
        database.next_ms.set(u64::MAX);
        rt::spawn(async move {
            let thread = rt::ThreadPool::new("geoip2", 1, 1);
            match thread.run(move || read(&path)).await {
                Ok(Ok((records, stamp))) => {
                    *database.records.borrow_mut() = Rc::new(records);
                    database.stamp.set(stamp);
                    database.changed.set(engine::clock::now().0 as u64);
                }
                // A file that isn't whole yet is tried again.
                Ok(Err(why)) => *database.failure.borrow_mut() = Some(why),
                Err(why) => *database.failure.borrow_mut() = Some(why.to_string()),
            }
            database.next_ms.set(rt::now_ms().saturating_add(interval));
        });
    }

    fn metadata(&self, metadata: Metadata) -> u64 {
        match metadata {
            Metadata::Built => self.records.borrow().build_epoch(),
            Metadata::Checked => self.checked.get(),
            Metadata::Changed => self.changed.get(),
        }
    }
}
