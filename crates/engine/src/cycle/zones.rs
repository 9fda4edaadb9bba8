//! Zones of shared memory by their names: declared while the configuration is read, made or kept when it is opened.
//!
//! A module declares a zone with its size and its owner (a module's name: who understands what is in it), or refers to
//! one by name alone, before or after it is declared. When the whole configuration has been read, a zone that the
//! running cycle has under the same name, size and owner is kept with all that is in it; others are made. That is done
//! by the master before it forks, so all workers share them. A zone that a reload drops is unmapped with the cycle
//! that had it.
//!
//! In an upgrade the first cycle of the new program takes the zones of the old one (`crate::handover::zones`), which
//! has to have laid out their entries in the same way. Both programs use them then.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use conf::{Error, Loader, Result, Word};
use shm::{Counters, Map, Names, Recovery, Stuck, Zone};

use crate::cycle::Cycle;
use crate::handover::zones::{Label, Passed};
use crate::log::{self, Errno};

/// The zones of a cycle, and its counters.
#[derive(Default)]
pub struct Zones {
    list: Vec<Rc<SharedZone>>,
    counters: Vec<Counters>,
}

/// A zone by its name. It has memory from the moment when the cycle was opened.
pub struct SharedZone {
    name: Rc<str>,
    /// In bytes; 0 as long as it was only referred to.
    size: Cell<usize>,
    owner: Owner,
    /// On what else in the configuration it depends what entries mean.
    meaning: RefCell<String>,
    data: RefCell<Option<Rc<dyn Any>>>,
    starts: RefCell<Vec<Start>>,
    on_death: Cell<Option<OnDeath>>,
    zone: OnceCell<Rc<Zone>>,
}

/// A zone is equal to itself alone.
impl PartialEq for SharedZone {
    fn eq(&self, other: &SharedZone) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Who declares a zone, and alone understands its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The name of a module.
    pub module: &'static str,
    /// The version of what it keeps in entries: another one whenever keys or values change, so that a new program doesn't
    /// take what it would misread.
    pub layout: u32,
}

/// Where the memory of a zone comes from.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// It is new, and empty.
    New,
    /// From the running cycle.
    Kept {
        /// How that declared it.
        old: &'a SharedZone,
        /// Another program uses it too, the one that this one takes the place of.
        shared: bool,
    },
    /// From the program that this one takes the place of, and that uses it too.
    Passed,
}

impl<'a> Origin<'a> {
    /// How the running cycle declared it.
    pub fn declaration(self) -> Option<&'a SharedZone> {
        if let Origin::Kept { old, .. } = self { Some(old) } else { None }
    }

    /// Whether another program uses it too: what that needs isn't known.
    pub fn is_shared(self) -> bool {
        matches!(self, Origin::Passed | Origin::Kept { shared: true, .. })
    }
}

/// Looks at a zone that has its memory; an error refuses the configuration.
type Start = Box<dyn Fn(&SharedZone, Origin<'_>) -> std::result::Result<(), String>>;

/// Takes back what the process of this id held.
type OnDeath = fn(&mut Map<'_>, i32);

/// What zones are called among the loader's places.
const ZONE: &str = "zone";

/// The smallest size, as in nginx: 8 pages.
pub const SMALLEST: usize = 8 * 4096;

/// Declares a zone of `size` bytes, or refers to it (`size` 0). The first to say a size decides it.
pub fn declare(loader: &mut Loader<'_>, word: &Word, name: &[u8], size: usize, owner: Owner) -> Result<Rc<SharedZone>> {
    let name = String::from_utf8_lossy(name);
    loader.places.note(ZONE, &name, word.span);
    let zones = &mut loader.store.entry::<Zones>().list;
    let Some(zone) = zones.iter().find(|zone| *zone.name == *name) else {
        let zone = Rc::new(SharedZone::new(&name, size, owner));
        zones.push(zone.clone());
        return Ok(zone);
    };
    if zone.owner.module != owner.module {
        let message = format!("the shared memory zone \"{name}\" is already declared for a different use");
        return Err(Error::at(word, message));
    }
    let declared = zone.size.get();
    if declared == 0 {
        zone.size.set(size);
    } else if size != 0 && size != declared {
        let message =
            format!("the size {size} of shared memory zone \"{name}\" conflicts with already declared size {declared}");
        return Err(Error::at(word, message));
    }
    Ok(zone.clone())
}

/// Reads the value of a parameter `zone=NAME:SIZE`; `word` is the whole parameter.
pub fn parse<'w>(word: &'w Word, value: &'w [u8]) -> Result<(&'w [u8], usize)> {
    let invalid = || Error::at(word, format!("invalid zone size \"{}\"", word.lossy()));
    let colon = value.iter().position(|byte| *byte == b':').ok_or_else(invalid)?;
    let (name, size) = value.split_at(colon);
    let size = buf::parse::parse_size(size.get(1..).unwrap_or_default()).ok_or_else(invalid)?;
    Ok((name, large_enough(word, size)?))
}

/// The size of a zone, if it isn't too small.
pub fn large_enough(word: &Word, size: u64) -> Result<usize> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size < SMALLEST {
        return Err(Error::at(word, format!("zone \"{}\" is too small", word.lossy())));
    }
    Ok(size)
}

/// Counters that all workers share and that outlive reloads: those of the old cycle, if it has counters of these names.
pub fn counters(loader: &mut Loader<'_>, old: Option<&Cycle>, names: Names) -> std::io::Result<Counters> {
    let kept = old.and_then(|old| old.zones.counters.iter().find(|counters| counters.names() == names));
    let counters = match kept {
        Some(counters) => counters.clone(),
        None => Counters::new(names)?,
    };
    loader.store.entry::<Zones>().counters.push(counters.clone());
    Ok(counters)
}

impl SharedZone {
    fn new(name: &str, size: usize, owner: Owner) -> SharedZone {
        SharedZone {
            name: name.into(),
            size: Cell::new(size),
            owner,
            meaning: RefCell::default(),
            data: RefCell::default(),
            starts: RefCell::default(),
            on_death: Cell::new(None),
            zone: OnceCell::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// Its memory.
    ///
    /// # Panics
    /// Before the cycle was opened.
    pub fn zone(&self) -> &Rc<Zone> {
        self.zone.get().expect("zones get their memory before workers run")
    }

    /// Uses the table where one must not wait for long, as in the master: a process that is stopped may have its lock. The
    /// error is a message.
    pub fn with_soon<R>(&self, f: impl FnOnce(&mut Map<'_>) -> R) -> std::result::Result<R, String> {
        self.zone()
            .with_soon(f)
            .map_err(|Stuck(pid)| format!("shared memory zone \"{}\" is kept locked by {pid}", self.name))
    }

    /// What the owner keeps beside it, such as the key that a limit is counted by.
    pub fn data<T: Any>(&self) -> Option<Rc<T>> {
        self.data.borrow().clone().and_then(|data| data.downcast().ok())
    }

    /// Sets [`SharedZone::data`].
    pub fn set_data(&self, data: Rc<dyn Any>) {
        *self.data.borrow_mut() = Some(data);
    }

    /// Says on what in the configuration it depends what entries mean, such as the key that a limit is counted by. Of
    /// another program's zone it has to be the same.
    pub fn set_meaning(&self, meaning: &str) {
        meaning.clone_into(&mut self.meaning.borrow_mut());
    }

    /// Asks to be called when the zone has its memory. An error's text refuses the configuration.
    pub fn on_start(&self, f: impl Fn(&SharedZone, Origin<'_>) -> std::result::Result<(), String> + 'static) {
        self.starts.borrow_mut().push(Box::new(f));
    }

    /// Asks to be called, under the zone's lock, when a child has ended otherwise than it should: to take back what it
    /// held.
    pub fn on_death(&self, f: fn(&mut Map<'_>, i32)) {
        self.on_death.set(Some(f));
    }

    /// Gives the zone its memory: that of the declaration `old`, if there is one that it can have been kept from, or
    /// new memory. Done by the cycle; public for tests of owners.
    pub fn open(&self, old: Option<&SharedZone>) -> std::result::Result<(), String> {
        self.open_from(old, false)
    }

    fn open_from(&self, old: Option<&SharedZone>, shared: bool) -> std::result::Result<(), String> {
        let (name, size) = (&self.name, self.size.get());
        if size == 0 {
            return Err(format!("zero size shared memory zone \"{name}\""));
        }
        if let Some(old) = old.filter(|old| self.is_like(old))
            && let Some(zone) = old.zone.get()
        {
            return self.begin(zone.clone(), Origin::Kept { old, shared });
        }
        let zone = Zone::new(name, size, report).map_err(|error| match error.raw_os_error() {
            Some(_) => format!("memfd_create() or mmap() of {size} bytes failed{}", Errno(&error)),
            None => format!("zone \"{name}\" is too small"),
        })?;
        self.begin(Rc::new(zone), Origin::New)
    }

    /// Gives the zone memory that another program has passed on, if that has the same use and form; else says why it isn't
    /// taken.
    fn adopt(&self, passed: Passed) -> std::result::Result<(), Refusal> {
        let Passed { label, file } = passed;
        if let Some(why) = label.difference(&self.label()) {
            return Err(Refusal::Passed(why.to_owned()));
        }
        let zone = Zone::adopt(&self.name, self.size.get(), file, report);
        let zone = zone.map_err(|error| Refusal::Passed(format!("it can't be mapped{}", Errno(&error))))?;
        self.begin(Rc::new(zone), Origin::Passed).map_err(Refusal::Configuration)
    }

    fn begin(&self, zone: Rc<Zone>, origin: Origin<'_>) -> std::result::Result<(), String> {
        let _ = self.zone.set(zone);
        self.starts.borrow().iter().try_for_each(|start| start(self, origin))
    }

    /// What another program has to know of it.
    pub(crate) fn label(&self) -> Label {
        Label {
            name: self.name.to_string(),
            size: self.size.get() as u64,
            owner: self.owner.module.to_owned(),
            layout: self.owner.layout,
            format: shm::format(),
            meaning: self.meaning.borrow().clone(),
        }
    }

    /// For hints: who could have declared a zone that nobody has.
    fn undeclared(&self, registry: &conf::Registry) -> String {
        let tables = registry.tables().iter().filter(|table| table.module == self.owner.module);
        let mut rows = tables.flat_map(|table| &table.rows);
        let name = &self.name;
        match rows.find(|row| row.name.ends_with("_zone")) {
            Some(row) => format!("zone \"{name}\" isn't declared by any \"{}\"", row.name),
            None => format!("zone \"{name}\" is given a size nowhere"),
        }
    }

    fn is_like(&self, other: &SharedZone) -> bool {
        other.name == self.name && other.size == self.size && other.owner == self.owner
    }
}

impl Zones {
    /// Gives every zone its memory: one that there is already, or new one. The old cycle stays as it was. `places` knows
    /// where they are named, `registry` which directive declares them.
    pub(crate) fn open(&self, memory: Memory<'_>, places: &conf::Places, registry: &conf::Registry) -> Result<()> {
        let Memory { old, mut passed, shared } = memory;
        let find = |zone: &SharedZone| old.and_then(|old| old.list.iter().find(|other| zone.is_like(other)));
        self.list.iter().try_for_each(|zone| {
            let at = passed.iter().position(|passed| *passed.label.name == *zone.name);
            let opened = match at.map(|at| zone.adopt(passed.swap_remove(at))) {
                Some(Ok(())) => Ok(()),
                Some(Err(Refusal::Configuration(message))) => Err(message),
                other => {
                    if let Some(Err(Refusal::Passed(why))) = other {
                        note_refused(&zone.name, &why);
                    }
                    zone.open_from(find(zone).map(|old| &**old), shared)
                }
            };
            opened.map_err(|message| {
                let error = Error::new(message).or_at(places.get(ZONE, &*zone.name));
                error.or_hint(|| (zone.size.get() == 0).then(|| zone.undeclared(registry)))
            })
        })
    }

    /// Closes the zones' files in a process that passes them on to nobody.
    pub(crate) fn close_files(&self) {
        self.list.iter().filter_map(|shared| shared.zone.get()).for_each(|zone| zone.close_file());
    }

    /// Lets this process, which is to serve, count for itself.
    pub(crate) fn claim_counters(&self) {
        self.counters.iter().for_each(Counters::claim);
    }

    /// Frees the locks that the child `pid`, which has ended, had, and its counters; if it was `killed`, all it held is taken
    /// back. Returns whether that is done: a process that is stopped may have a lock, and isn't waited for.
    pub fn release_dead(&self, pid: i32, killed: bool) -> bool {
        self.counters.iter().for_each(|counters| counters.release_dead(pid));
        let mut done = true;
        for (shared, zone) in self.list.iter().filter_map(|shared| Some((shared, shared.zone.get()?))) {
            if zone.release_dead(pid) {
                crate::log!(log::current(), Alert, "shared memory zone \"{}\" was locked by {pid}", zone.name());
            }
            if let (true, Some(on_death)) = (killed, shared.on_death.get())
                && let Err(Stuck(holder)) = zone.with_soon(|map| on_death(map, pid))
            {
                let name = zone.name();
                crate::log!(log::current(), Alert, "shared memory zone \"{name}\" is kept locked by {holder}");
                done = false;
            }
        }
        done
    }

    /// The zone of this name, if it is this owner's.
    pub fn find(&self, name: &[u8], owner: Owner) -> Option<&Rc<SharedZone>> {
        self.list.iter().find(|zone| zone.name.as_bytes() == name && zone.owner == owner)
    }

    /// All zones.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<SharedZone>> {
        self.list.iter()
    }
}

/// The memory that there is for zones.
#[derive(Default)]
pub(crate) struct Memory<'a> {
    /// The running cycle's.
    pub(crate) old: Option<&'a Zones>,
    /// What another program has passed on.
    pub(crate) passed: Vec<Passed>,
    /// That program uses the memory of the running cycle too.
    pub(crate) shared: bool,
}

/// Why a zone doesn't get the memory that another program has passed on.
enum Refusal {
    /// That memory is no good for it.
    Passed(String),
    /// The configuration is refused.
    Configuration(String),
}

fn note_refused(name: &str, why: &str) {
    crate::log!(log::current(), Notice, "shared memory zone \"{name}\" of the old binary isn't taken, {why}");
}

/// The log learns that a process died within a zone.
fn report(name: &str, recovery: Recovery) {
    let found = match recovery {
        Recovery::Whole => "was checked and is whole",
        Recovery::Emptied => "was damaged and has been emptied",
    };
    crate::log!(log::current(), Alert, "shared memory zone \"{name}\" {found} after a process died within it");
}

#[cfg(test)]
mod tests {
    use conf::{Env, Registry, Sources};

    use super::*;

    fn owner(module: &'static str) -> Owner {
        Owner { module, layout: 1 }
    }

    fn word(text: &str) -> Word {
        Word { text: text.into(), ..Word::default() }
    }

    #[test]
    fn declarations_have_to_agree() {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        for (name, size, module, expect) in [
            ("a", 0, "m", ""),
            ("a", 65536, "m", ""),
            ("a", 65536, "m", ""),
            ("a", 0, "m", ""),
            ("a", 1, "m", "the size 1 of shared memory zone \"a\" conflicts with already declared size 65536"),
            ("a", 0, "n", "the shared memory zone \"a\" is already declared for a different use"),
            ("b", 65536, "n", ""),
        ] {
            let error = declare(&mut loader, &word(name), name.as_bytes(), size, owner(module)).err();
            assert_eq!(error.map(|error| error.message).unwrap_or_default(), expect, "{name} {size} {module}");
        }
        let zones = loader.store.take::<Zones>().expect("declared");
        assert_eq!(zones.iter().map(|zone| zone.size.get()).collect::<Vec<_>>(), [65536, 65536]);
    }

    #[test]
    fn sizes() {
        for (text, expect) in [
            ("zone=one:32k", Ok(("one", 32768))),
            ("zone=:1m", Ok(("", 1 << 20))),
            ("zone=one:31k", Err("zone \"zone=one:31k\" is too small")),
            ("zone=one", Err("invalid zone size \"zone=one\"")),
            ("zone=one:", Err("invalid zone size \"zone=one:\"")),
            ("zone=one:1x", Err("invalid zone size \"zone=one:1x\"")),
        ] {
            let word = word(text);
            let parsed = parse(&word, &text.as_bytes()["zone=".len()..]);
            let parsed = parsed.map(|(name, size)| (String::from_utf8_lossy(name).into_owned(), size));
            let expect = expect.map(|(name, size)| (name.to_owned(), size)).map_err(str::to_owned);
            assert_eq!(parsed.map_err(|error| error.message), expect);
        }
    }

    fn zones(declared: &[(&str, usize, &'static str)]) -> Zones {
        let list =
            declared.iter().map(|(name, size, module)| Rc::new(SharedZone::new(name, *size, owner(module)))).collect();
        Zones { list, ..Zones::default() }
    }

    fn open(zones: &Zones, old: Option<&Zones>) -> Result<()> {
        zones.open(Memory { old, ..Memory::default() }, &conf::Places::default(), &Registry::new())
    }

    fn opened(new: &Zones, old: &Zones) -> std::result::Result<(), String> {
        open(new, Some(old)).map_err(|error| error.message)
    }

    #[test]
    fn the_same_zone_is_kept() {
        let old = zones(&[("a", 65536, "m"), ("b", 65536, "m"), ("c", 65536, "m")]);
        open(&old, None).expect("memory");
        for zone in old.iter() {
            zone.zone().with(|map| map.insert(b"key", b"")).expect("room");
        }
        let new = zones(&[("a", 65536, "m"), ("b", 131_072, "m"), ("c", 65536, "n"), ("d", 65536, "m")]);
        open(&new, Some(&old)).expect("memory");
        let kept: Vec<bool> = new.iter().map(|zone| zone.zone().with(|map| map.find(b"key").is_some())).collect();
        assert_eq!(kept, [true, false, false, false]);
    }

    /// The same zones as another program has them.
    fn passed(zones: &Zones) -> Vec<Passed> {
        let pass = |zone: &Rc<SharedZone>| {
            let file = zone.zone().file().expect("not closed").try_clone().expect("a descriptor");
            Passed { label: zone.label(), file }
        };
        zones.iter().map(pass).collect()
    }

    #[test]
    fn another_program_has_to_mean_the_same() {
        let old =
            zones(&[("a", 65536, "m"), ("b", 65536, "m"), ("c", 65536, "m"), ("d", 65536, "m"), ("e", 65536, "m")]);
        open(&old, None).expect("memory");
        for zone in old.iter() {
            zone.zone().with(|map| map.insert(b"key", b"")).expect("room");
        }
        let new =
            zones(&[("a", 65536, "m"), ("b", 131_072, "m"), ("c", 65536, "n"), ("d", 65536, "m"), ("f", 65536, "m")]);
        new.list[3].set_meaning("another key");
        let origins: Rc<RefCell<String>> = Rc::default();
        for zone in new.iter() {
            let origins = origins.clone();
            zone.on_start(move |_, origin| {
                origins.borrow_mut().push(match origin {
                    Origin::New => 'n',
                    Origin::Kept { .. } => 'k',
                    Origin::Passed => 'p',
                });
                Ok(())
            });
        }
        new.open(Memory { passed: passed(&old), ..Memory::default() }, &conf::Places::default(), &Registry::new())
            .expect("memory");
        let taken: Vec<bool> = new.iter().map(|zone| zone.zone().with(|map| map.find(b"key").is_some())).collect();
        assert_eq!((taken, &**origins.borrow()), (vec![true, false, false, false, false], "pnnnn"));
        new.list[0].zone().with(|map| map.insert(b"other", b"")).expect("room");
        assert_eq!(old.list[0].zone().with(|map| map.len()), 2, "both use it");
        // One that can't be mapped, or refuses.
        let mut lent = passed(&old);
        lent[0].label.size = 131_072;
        let new = zones(&[("a", 131_072, "m"), ("c", 65536, "m")]);
        new.list[1].on_start(|_, _| Err("no".to_owned()));
        let error = new
            .open(Memory { passed: lent, ..Memory::default() }, &conf::Places::default(), &Registry::new())
            .map_err(|error| error.message);
        assert_eq!(error, Err("no".to_owned()));
        assert!(new.list[0].zone().with(|map| map.is_empty()));
    }

    #[test]
    fn who_is_stopped_within_a_zone_stops_nobody_who_manages() {
        let zones = zones(&[("a", 65536, "m")]);
        open(&zones, None).expect("memory");
        zones.list[0].on_death(|map, pid| {
            map.insert(&pid.to_ne_bytes(), b"");
        });
        let (ready, told) = std::io::pipe().expect("a pipe");
        let child = os::process::tests_spawn(|| {
            zones.list[0].zone().with(|_| {
                let _ = std::io::Write::write_all(&mut &told, b"x");
                let _ = os::process::kill(os::process::pid(), os::signal::SIGSTOP);
            });
        });
        std::io::Read::read_exact(&mut &ready, &mut [0]).expect("it is within");
        let begin = std::time::Instant::now();
        assert!(!zones.release_dead(7, true), "another time");
        let message = format!("shared memory zone \"a\" is kept locked by {child}");
        assert_eq!(zones.list[0].with_soon(|_| ()), Err(message));
        assert!(begin.elapsed().as_secs() < 10, "a second is meant");
        os::process::kill(child, os::signal::SIGCONT).expect("it lives");
        assert!(zones.release_dead(7, true));
        assert_eq!(zones.list[0].with_soon(|map| map.len()), Ok(1));
        os::process::tests_wait(child);
    }

    #[test]
    fn owners_may_refuse() {
        let old = zones(&[("a", 65536, "m")]);
        open(&old, None).expect("memory");
        let new = zones(&[("a", 65536, "m"), ("z", 0, "m")]);
        assert_eq!(opened(&new, &old), Err("zero size shared memory zone \"z\"".to_owned()));
        let new = zones(&[("a", 65536, "m")]);
        new.list[0].on_start(|_, origin| origin.declaration().map_or(Ok(()), |_| Err("no".to_owned())));
        assert_eq!(opened(&new, &old), Err("no".to_owned()));
    }
}
