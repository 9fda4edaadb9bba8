//! `geo`: variables whose values are looked up by addresses.
//!
//! Networks, however they nest, are flattened into disjoint ranges when the block has been read, so a lookup is one
//! binary search. Values are plain text, each kept once.
//!
//! Not in Tidegate: nginx keeps what it has compiled of a file of ranges beside it, in a `.bin` file of its own format.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use conf::{Args, Directive, Error, Level, Loader, Registry, Result, Word};
use expr::lookup::{Network, Networks, Ranges, parse_ipv4};
use expr::vars::Template;

use super::realip::{Forwarders, Proxies, Trusted, geo_network};
use super::{Module, define_looked_up, each_line};
use crate::Proto;
use crate::vars::text::put;
use crate::vars::{self, Variable};

/// The module.
pub struct Geo;

conf::table! {
    /// No values: each block defines a variable.
    pub struct GeoConf of P: Proto, raw GeoRaw,
        at P::tables().geo, block P::PLACES.block, level Level::Main;

    /// Defines a variable whose value depends on an address.
    ///
    /// Form: `geo [$address] $name`
    ///
    /// - `$address`: the variable with the address; without it that is the client's. What isn't an address counts as
    ///   255.255.255.255.
    /// - `$name`: the variable that is defined.
    /// - `network value`: a line of the block: a network such as `192.0.2.0/24` or `2001:db8::/32`, or an address, and
    ///   the value for addresses in it.
    /// - `default value`: the value for other addresses; without it that is empty.
    /// - `delete network`: takes back a line before it, such as one of an included file.
    /// - `include file`: further lines are read from a file.
    /// - `ranges`: lines have ranges of IPv4 addresses, such as `192.0.2.0-192.0.2.99`, in place of networks. It has to
    ///   stand first. A range may lie within one before it, of which the rest stays.
    /// - `proxy network`: a trusted proxy: of its requests the address in the field `X-Forwarded-For` is looked up.
    /// - `proxy_recursive`: of several addresses in that field the last one counts that isn't a trusted proxy's, in place
    ///   of the last one.
    /// - `volatile`: the variable is computed at each use, not once for a request.
    ///
    /// Effect: the smallest network that holds the address counts, whatever the order of the lines.
    ///
    /// Cost: nothing for requests that don't use the variable, else a binary search. A network takes about 20 bytes, one
    /// of IPv6 about 50; each value is kept once.
    ///
    /// ```nginx
    /// geo $area {
    ///     default        world;
    ///     192.0.2.0/24   office;
    ///     2001:db8::/32  office;
    /// }
    /// ```
    "geo" in P::PLACES.block, Args::between(1, 2).block(), default none,
        block(geo::<P>);
}

impl<P: Proto> Module<P> for Geo {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GeoConf<P>>();
    }
}

fn geo<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let (source, name) = match &d.args[..] {
        [source, name] => (Some(vars::one_variable::<P>(loader, source)?), name),
        _ => (None, d.arg(0)),
    };
    let mut block = Block { proxies: P::HAS_HEADS, ..Block::default() };
    each_line(loader, d, |loader, line| block.line(loader, line))?;
    let volatile = block.volatile;
    let text = "The value that `geo` gives to the address. Empty if no network holds it and there is no `default`.";
    define_looked_up::<P>(loader, name, P::tables().geo.module(), text, volatile, Rc::new(block.finish(source)))
}

/// An index of a value in [`Table::values`].
type ValueId = u32;

/// A block while it is read.
#[derive(Default)]
struct Block {
    places: Option<Places>,
    default: Option<ValueId>,
    /// Every value once, and its index.
    values: HashMap<Box<[u8]>, ValueId>,
    /// Whether the protocol has proxies that name clients.
    proxies: bool,
    trusted: Vec<Proxies>,
    recursive: bool,
    volatile: bool,
}

/// What the lines have so far.
enum Places {
    Networks(HashMap<Network, ValueId>),
    /// Disjoint ranges: by their first addresses the last ones and the values.
    Ranges(BTreeMap<u32, (u32, ValueId)>),
}

impl Block {
    /// A line of the block. Includes have been replaced by what they include.
    fn line(&mut self, loader: &mut Loader<'_>, line: &Directive) -> Result<()> {
        match (&line.name.text[..], line.args.len()) {
            (b"ranges", 0) => match self.places.get_or_insert_with(|| Places::Ranges(BTreeMap::new())) {
                Places::Ranges(_) => return Ok(()),
                Places::Networks(_) => {
                    let message = "the \"ranges\" directive must be the first directive inside \"geo\" block";
                    return Err(Error::on(line, message));
                }
            },
            (b"proxy_recursive", 0) if self.proxies => {
                self.recursive = true;
                return Ok(());
            }
            (b"volatile", 0) => {
                self.volatile = true;
                return Ok(());
            }
            (b"proxy", 1) if self.proxies => {
                let network = geo_network(loader, line, line.arg(0))?;
                self.trusted.push(Proxies::At(vec![network]));
                return Ok(());
            }
            (_, 1) => {}
            _ => return Err(Error::on(line, "invalid number of the geo parameters")),
        }
        let places = self.places.get_or_insert_with(|| Places::Networks(HashMap::new()));
        match &line.name.text[..] {
            b"default" => self.set_default(loader, line),
            b"delete" => delete(places, loader, line, line.arg(0)),
            _ => self.add(loader, line),
        }
    }

    fn set_default(&mut self, loader: &mut Loader<'_>, line: &Directive) -> Result<()> {
        let value = self.intern(&line.arg(0).text);
        if let Some(old) = self.default.replace(value) {
            self.warn_duplicate(loader, line, "network", old);
        }
        Ok(())
    }

    fn add(&mut self, loader: &mut Loader<'_>, line: &Directive) -> Result<()> {
        let value = self.intern(&line.arg(0).text);
        let old = match &mut self.places {
            Some(Places::Ranges(ranges)) => {
                let range = parse_range(&line.name)?;
                let old = insert(ranges, range, value);
                old.map_err(|overlapped| {
                    let message = format!("range \"{}\" overlaps \"{overlapped}\"", line.name.lossy());
                    Error::at(&line.name, message)
                })?
            }
            Some(Places::Networks(networks)) => networks.insert(geo_network(loader, line, &line.name)?.first(), value),
            None => None,
        };
        if let Some(old) = old {
            let what = if matches!(self.places, Some(Places::Ranges(_))) { "range" } else { "network" };
            self.warn_duplicate(loader, line, what, old);
        }
        Ok(())
    }

    fn warn_duplicate(&self, loader: &mut Loader<'_>, line: &Directive, what: &str, old: ValueId) {
        let old = self.values.iter().find(|(_, id)| **id == old).map(|(text, _)| &**text).unwrap_or_default();
        let (name, value, old) = (line.name.lossy(), line.arg(0).lossy(), buf::text::encode(old));
        let message = format!("duplicate {what} \"{name}\", value: \"{value}\", old value: \"{old}\"");
        loader.warn(line, Error::at(&line.name, message));
    }

    /// The index of a value.
    fn intern(&mut self, text: &[u8]) -> ValueId {
        if let Some(known) = self.values.get(text) {
            return *known;
        }
        let id = self.values.len() as ValueId;
        self.values.insert(text.into(), id);
        id
    }

    fn finish(self, source: Option<Rc<Template>>) -> Table {
        let places = match self.places {
            Some(Places::Ranges(ranges)) => {
                let ranges = ranges.into_iter().map(|(first, (last, value))| (first, last, value));
                Compiled::Ranges(Ranges::later_wins(ranges.collect()))
            }
            Some(Places::Networks(networks)) => Compiled::Networks(Networks::smallest_wins(networks)),
            None => Compiled::Networks(Networks::smallest_wins([])),
        };
        let mut values = vec![Box::default(); self.values.len()];
        for (text, id) in self.values {
            values[id as usize] = text;
        }
        Table {
            source,
            places,
            default: self.default,
            values,
            proxies: Forwarders { trusted: Trusted::new(&self.trusted), recursive: self.recursive },
        }
    }
}

fn delete(places: &mut Places, loader: &mut Loader<'_>, line: &Directive, word: &Word) -> Result<()> {
    let (found, what) = match places {
        Places::Networks(networks) => (networks.remove(&geo_network(loader, line, word)?.first()).is_some(), "network"),
        Places::Ranges(ranges) => {
            let (first, last) = parse_range(word)?;
            let found = ranges.get(&first).is_some_and(|(end, _)| *end == last);
            found.then(|| ranges.remove(&first));
            (found, "address range")
        }
    };
    if !found {
        loader.warn(line, Error::at(word, format!("no {what} \"{}\" to delete", word.lossy())));
    }
    Ok(())
}

/// `192.0.2.0-192.0.2.99`: the first and the last address.
fn parse_range(word: &Word) -> Result<(u32, u32)> {
    let parse = |text: &str| {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (parse_ipv4(first)?, parse_ipv4(last)?);
        (first <= last).then_some((first.to_bits(), last.to_bits()))
    };
    let range = std::str::from_utf8(&word.text).ok().and_then(parse);
    range.ok_or_else(|| Error::at(word, format!("invalid range \"{}\"", word.lossy())))
}

/// Adds a range to disjoint ones. One that lies within another takes its place there; the value of the same range before
/// it is given back. `Err`: it overlaps another one in some other way.
fn insert(
    ranges: &mut BTreeMap<u32, (u32, ValueId)>,
    (first, last): (u32, u32),
    value: ValueId,
) -> std::result::Result<Option<ValueId>, String> {
    let outer = ranges.range(..=last).next_back().map(|(start, (end, value))| (*start, *end, *value));
    let Some((start, end, old)) = outer.filter(|(_, end, _)| *end >= first) else {
        ranges.insert(first, (last, value));
        return Ok(None);
    };
    if first < start || end < last {
        return Err(format!("{}-{}", Ipv4Addr::from(start), Ipv4Addr::from(end)));
    }
    if start < first {
        ranges.insert(start, (first - 1, old));
    }
    ranges.insert(first, (last, value));
    if last < end {
        ranges.insert(last + 1, (end, old));
    }
    Ok(((start, end) == (first, last)).then_some(old))
}

/// The variable.
struct Table {
    source: Option<Rc<Template>>,
    places: Compiled,
    default: Option<ValueId>,
    values: Vec<Box<[u8]>>,
    proxies: Forwarders,
}

enum Compiled {
    Networks(Networks<ValueId>),
    Ranges(Ranges<u32, ValueId>),
}

impl<P: Proto> Variable<P> for Table {
    fn value(&self, session: &mut P::Session, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let address = self.address(session, out);
        out.truncate(start);
        put(out, self.value_of(address))
    }
}

impl Table {
    /// The address that is looked up; `out` serves as scratch memory.
    fn address<S: crate::Session>(&self, session: &mut S, out: &mut Vec<u8>) -> IpAddr {
        let start = out.len();
        let given = match &self.source {
            None => session.peer().ip(),
            Some(source) => {
                source.render(session, out);
                std::str::from_utf8(&out[start..]).ok().and_then(|text| text.parse().ok())
            }
        };
        self.proxies.client(session, given.unwrap_or(NO_ADDRESS))
    }

    fn value_of(&self, address: IpAddr) -> &[u8] {
        let found = match (&self.places, address.to_canonical()) {
            (Compiled::Networks(networks), address) => networks.lookup(address),
            (Compiled::Ranges(ranges), IpAddr::V4(address)) => ranges.lookup_ip(address),
            (Compiled::Ranges(ranges), IpAddr::V6(_)) => ranges.lookup_ip(Ipv4Addr::BROADCAST),
        };
        let value = found.or(self.default.as_ref()).and_then(|id| self.values.get(*id as usize));
        value.map(|text| &**text).unwrap_or_default()
    }
}

/// What stands for text that isn't an address, and for clients on unix sockets.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

#[cfg(test)]
mod tests {
    use conf::{Env, Sources};

    use super::*;

    fn word(text: &str) -> Word {
        Word { text: text.into(), ..Word::default() }
    }

    /// What a block says, its warnings, and its error.
    fn read(lines: &str) -> (Table, Vec<String>, Option<String>) {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let line = |line: &str| {
            let mut words = line.split_ascii_whitespace().map(word);
            Directive { name: words.next().unwrap_or_default(), args: words.collect(), ..Directive::default() }
        };
        let lines = lines.split_terminator(';').map(line).collect();
        let d = Directive { name: word("geo"), args: vec![word("$x")], block: Some(lines), ..Directive::default() };
        let mut block = Block { proxies: true, ..Block::default() };
        let error = each_line(&mut loader, &d, |loader, line| block.line(loader, line)).err();
        let warnings = loader.warnings.iter().map(|warning| warning.message.clone()).collect();
        (block.finish(None), warnings, error.map(|error| error.message))
    }

    /// What nginx answers to the same blocks.
    #[test]
    fn lookups() {
        let networks = "default D; 127.0.0.0/8 loop; 127.0.0.1 one; 10.0.0.0/8 ten; 10.0.0.0/8 again; 10.5.0.0/16 x; \
                        delete 10.5.0.0/16; ::1 v6; 2001:db8::/32 doc; 1.2.3.4/8 low";
        let ranges = "ranges; default D; 1.0.0.0-1.0.0.255 a; 1.0.0.10-1.0.0.20 b; 2.0.0.0-2.0.0.9 c; \
                      2.0.0.5-2.0.0.9 d; 2.0.0.0-2.0.0.2 e; 3.0.0.0-3.0.0.9 f; 3.0.0.3-3.0.0.5 g; \
                      delete 3.0.0.3-3.0.0.5; delete 1.0.0.0-1.0.0.9";
        for (lines, pairs) in [
            (
                networks,
                &[
                    ("127.0.0.1", "one"),
                    ("127.0.0.2", "loop"),
                    ("::ffff:127.0.0.1", "one"),
                    ("10.0.0.1", "again"),
                    ("10.5.0.1", "again"),
                    ("::1", "v6"),
                    ("2001:db8::5", "doc"),
                    ("1.9.9.9", "low"),
                    ("255.255.255.255", "D"),
                    ("::5", "D"),
                ][..],
            ),
            (
                ranges,
                &[
                    ("1.0.0.5", "D"),
                    ("1.0.0.10", "b"),
                    ("1.0.0.20", "b"),
                    ("1.0.0.21", "a"),
                    ("2.0.0.0", "e"),
                    ("2.0.0.4", "c"),
                    ("2.0.0.9", "d"),
                    ("2.0.0.10", "D"),
                    ("3.0.0.2", "f"),
                    ("3.0.0.3", "D"),
                    ("3.0.0.6", "f"),
                    ("::ffff:1.0.0.10", "b"),
                    ("::5", "D"),
                ],
            ),
            ("volatile; ranges; 1.0.0.0-1.0.0.9 a", &[("1.0.0.9", "a")]),
            ("::/0 six; 0.0.0.0/0 four", &[("1.2.3.4", "four"), ("::5", "six")]),
            ("10.0.0.0/8 $x", &[("10.0.0.1", "$x"), ("1.2.3.4", "")]),
            ("", &[("1.2.3.4", "")]),
        ] {
            let (table, _, error) = read(lines);
            assert_eq!(error, None, "{lines}");
            for (address, expect) in pairs {
                let value = table.value_of(address.parse().expect("an address"));
                assert_eq!(String::from_utf8_lossy(value), *expect, "{address} in {lines}");
            }
        }
    }

    #[test]
    fn warnings() {
        for (lines, expect) in [
            ("10.0.0.0/8 a; 10.0.0.0/8 b", "duplicate network \"10.0.0.0/8\", value: \"b\", old value: \"a\""),
            ("default a; default a", "duplicate network \"default\", value: \"a\", old value: \"a\""),
            ("10.0.0.1/8 a", "low address bits of 10.0.0.1/8 are meaningless"),
            ("delete 10.0.0.0/8", "no network \"10.0.0.0/8\" to delete"),
            ("proxy 10.0.0.1/8", "low address bits of 10.0.0.1/8 are meaningless"),
            (
                "ranges; 1.1.1.1-1.1.1.5 a; 1.1.1.1-1.1.1.5 b",
                "duplicate range \"1.1.1.1-1.1.1.5\", value: \"b\", old value: \"a\"",
            ),
            ("ranges; 1.1.1.1-1.1.1.5 a; delete 1.1.1.2-1.1.1.3", "no address range \"1.1.1.2-1.1.1.3\" to delete"),
        ] {
            let (_, warnings, error) = read(lines);
            assert_eq!((&warnings[..], error), (&[expect.to_owned()][..], None), "{lines}");
        }
        let (_, warnings, error) = read("ranges; ranges; proxy_recursive; volatile; 0.0.0.0-255.255.255.255 x");
        assert_eq!((warnings.len(), error), (0, None));
    }

    #[test]
    fn errors() {
        let count = "invalid number of the geo parameters";
        let first = "the \"ranges\" directive must be the first directive inside \"geo\" block";
        for (lines, expect) in [
            ("10.0.0.0/33 a", "invalid network \"10.0.0.0/33\""),
            ("foo a", "invalid network \"foo\""),
            ("delete foo", "invalid network \"foo\""),
            ("proxy foo", "invalid network \"foo\""),
            ("default", count),
            ("foo", count),
            ("10.0.0.0/8 a b", count),
            ("proxy 10.0.0.0/8 x", count),
            ("10.0.0.0/8 a; ranges", first),
            ("default a; ranges", first),
            ("ranges; 10.0.0.0/8 a", "invalid range \"10.0.0.0/8\""),
            ("ranges; 1.1.1.2-1.1.1.1 a", "invalid range \"1.1.1.2-1.1.1.1\""),
            ("ranges; ::1-::2 a", "invalid range \"::1-::2\""),
            ("ranges; delete foo", "invalid range \"foo\""),
            (
                "ranges; 1.1.1.1-1.1.1.5 a; 1.1.1.2-1.1.1.4 b; 1.1.1.0-1.1.1.9 c",
                "range \"1.1.1.0-1.1.1.9\" overlaps \"1.1.1.5-1.1.1.5\"",
            ),
            (
                "ranges; 1.1.1.0-1.1.1.9 a; 1.1.1.9-1.1.1.10 b",
                "range \"1.1.1.9-1.1.1.10\" overlaps \"1.1.1.0-1.1.1.9\"",
            ),
        ] {
            assert_eq!(read(lines).2.as_deref(), Some(expect), "{lines}");
        }
    }
}
