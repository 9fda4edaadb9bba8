//! The blocks of HTTP: `http`, `server`, `location`, `limit_except`, `types`; and the locations that are gathered while they
//! are read. What servers have in common with those of other protocols is `common`'s.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use common::front::blocks as front;
use conf::{Context, Directive, Error, Level, Loader, RawSet, Result, Span};

use super::core::CoreLocationRaw;
use super::mime::Types;
use crate::proto::HttpProto;
use crate::request::variables::one_variable;
use crate::server::location::{Kind, LocationId};

/// `http {}` with its servers, before inheritance.
pub type Block = front::Builder<HttpProto>;

/// The locations of `http {}`, before inheritance.
#[derive(Default)]
pub struct Builder {
    /// All locations, with the servers' own levels among them.
    pub locations: Vec<LocationNode>,
    /// The servers' own levels as locations, in the order of the file.
    pub roots: Vec<LocationId>,
    location: Option<LocationId>,
    /// Exact and prefix locations by the level that they stand in.
    named: HashMap<(u32, bool, Box<[u8]>), Span>,
}

/// A location, before inheritance.
pub struct LocationNode {
    /// Its name or pattern.
    pub name: Box<[u8]>,
    /// How it is found.
    pub kind: Kind,
    /// What was set there.
    pub raw: Rc<RefCell<RawSet>>,
    /// The location around it.
    pub parent: Option<LocationId>,
    /// The server it belongs to.
    pub server: usize,
    /// The locations in it, in the order of the file.
    pub children: Vec<LocationId>,
    /// The block of `limit_except` with the methods that don't enter it.
    pub limit_except: Option<(u32, LocationId)>,
    /// Where it stands.
    pub span: Span,
}

/// `http { … }`.
pub fn http(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    front::block::<HttpProto>(loader, d, crate::module::begin_http)
}

/// `server { … }`.
pub fn server(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    front::server_of::<HttpProto>(loader, d, |loader, frame| {
        let builder = loader.store.entry::<Builder>();
        let root = builder.push(LocationNode {
            name: Box::default(),
            kind: Kind::Server,
            raw: frame.levels[Level::Location as usize].clone(),
            parent: None,
            server: builder.roots.len(),
            children: Vec::new(),
            limit_except: None,
            span: d.name.span,
        });
        builder.roots.push(root);
        builder.location = Some(root);
    })?;
    loader.store.entry::<Builder>().location = None;
    Ok(())
}

/// `location [modifier] name { … }`.
pub fn location(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let (kind, name) = parse_location(loader, d)?;
    let builder = loader.store.entry::<Builder>();
    let parent = builder.location.expect("a location stands in a server");
    builder.check_nesting(parent, &kind, &name, d)?;
    if let Some(first) = builder.duplicate(parent, &kind, &name, d) {
        let error = Error::on(d, format!("duplicate location \"{}\"", String::from_utf8_lossy(&name)));
        // nginx finds it after the whole of "http" has been read.
        return Err(Error { met: Some(u32::MAX), ..error.hint(loader.stands_first(first)) });
    }
    inner(loader, d, kind, name, Context::LOCATION)?;
    Ok(())
}

/// Reads a block as a location of its own inside the current one; gives its id.
pub fn inner(
    loader: &mut Loader<'_>,
    d: &Directive,
    kind: Kind,
    name: Box<[u8]>,
    context: Context,
) -> Result<LocationId> {
    let frame = loader.frame().nested(Level::Location);
    let builder = loader.store.entry::<Builder>();
    let parent = builder.location.expect("a location stands in a server");
    let node = LocationNode {
        name,
        kind,
        raw: frame.levels[Level::Location as usize].clone(),
        parent: Some(parent),
        server: builder.locations[parent.0 as usize].server,
        children: Vec::new(),
        limit_except: None,
        span: d.name.span,
    };
    let id = builder.push(node);
    builder.locations[parent.0 as usize].children.push(id);
    builder.location = Some(id);
    loader.block(d.block.as_deref().unwrap_or_default(), context, frame);
    loader.store.entry::<Builder>().location = Some(parent);
    Ok(id)
}

/// `limit_except METHOD … { … }`.
pub fn limit_except(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let mut methods = 0;
    for word in &d.args {
        let name = word.text.to_ascii_uppercase();
        let Some(method) = wire::h1::Method::of(&name) else {
            return Err(Error::at(word, format!("invalid method \"{}\"", word.lossy())));
        };
        methods |= method.bit();
    }
    if methods & wire::h1::Method::Get.bit() != 0 {
        methods |= wire::h1::Method::Head.bit();
    }
    let builder = loader.store.entry::<Builder>();
    let outer = builder.location.expect("limit_except stands in a location");
    if builder.locations[outer.0 as usize].limit_except.is_some() {
        return Err(conf::table::duplicate(d));
    }
    let name = builder.locations[outer.0 as usize].name.clone();
    let id = inner(loader, d, Kind::Inner, name, Context::LIMIT_EXCEPT)?;
    loader.store.entry::<Builder>().locations[outer.0 as usize].limit_except = Some((methods, id));
    Ok(())
}

/// `types { … }`.
pub fn types(raw: &mut CoreLocationRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let types = raw.types.get_or_insert_with(|| Rc::new(Types::new()));
    let types = Rc::make_mut(types);
    for entry in d.entries() {
        let entry = entry?;
        if entry.name == "include" {
            let message = "invalid number of arguments in \"include\" directive";
            return Err(Error::place(entry.span(), message));
        }
        for extension in &entry.args {
            if let Some(previous) = types.add(&extension.text, &entry.name.text) {
                let (shown, previous) = (extension.lossy().to_ascii_lowercase(), String::from_utf8_lossy(&previous));
                let message = format!(
                    "duplicate extension \"{shown}\", content type: \"{}\", previous content type: \"{previous}\"",
                    entry.name.lossy()
                );
                loader.warn(entry, Error::at(extension, message));
            }
        }
    }
    Ok(())
}

/// Whether the current location, or one around it, is a named one.
pub(crate) fn in_named_location(loader: &mut Loader<'_>) -> bool {
    let builder = loader.store.entry::<Builder>();
    let mut at = builder.location;
    while let Some(id) = at {
        let node = &builder.locations[id.0 as usize];
        if matches!(node.kind, Kind::Named) {
            return true;
        }
        at = node.parent;
    }
    false
}

/// The name of the current location and whether it is found by regex, for modules that replace its prefix; `if` blocks
/// count as the location around them.
pub fn current_location(loader: &mut Loader<'_>) -> (Box<[u8]>, CurrentKind) {
    let builder = loader.store.entry::<Builder>();
    let mut at = builder.location;
    let mut inside = false;
    while let Some(id) = at {
        let node = &builder.locations[id.0 as usize];
        let kind = match &node.kind {
            Kind::Inner => {
                inside = true;
                at = node.parent;
                continue;
            }
            Kind::Regex(_) | Kind::Predicate(_) => CurrentKind::Regex,
            Kind::Named => CurrentKind::Named,
            Kind::Server => CurrentKind::Server,
            Kind::Exact | Kind::Prefix { .. } if inside => CurrentKind::Inner,
            Kind::Exact | Kind::Prefix { .. } => CurrentKind::Path,
        };
        return (node.name.clone(), kind);
    }
    (Box::default(), CurrentKind::Server)
}

/// The location whose rewrite rules the current block's rules belong to: the first around it that isn't an `if`.
pub fn rules_owner(loader: &mut Loader<'_>) -> LocationId {
    let builder = loader.store.entry::<Builder>();
    let mut id = builder.location.expect("rules stand in a server");
    while let (Kind::Inner, Some(parent)) =
        (&builder.locations[id.0 as usize].kind, builder.locations[id.0 as usize].parent)
    {
        id = parent;
    }
    id
}

/// What [`current_location`] tells of a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurrentKind {
    /// Found by its path.
    Path,
    /// Found by a regex or a predicate: its name is no beginning of the URI.
    Regex,
    /// Named.
    Named,
    /// Inside `if` or `limit_except` of a location that is found by its path.
    Inner,
    /// No location, but a server.
    Server,
}

fn parse_location(loader: &mut Loader<'_>, d: &Directive) -> Result<(Kind, Box<[u8]>)> {
    let word = d.args.last().unwrap_or(&d.name);
    let text = &word.text[..];
    let (modifier, name) = match &d.args[..] {
        [modifier, _] => (&modifier.text[..], text),
        _ => split_modifier(text),
    };
    let kind = match modifier {
        b"=" => Kind::Exact,
        b"^~" => Kind::Prefix { no_regex: true },
        b"~" => Kind::Regex(Box::new(crate::request::variables::regex(loader, word, name, false)?)),
        b"~*" => Kind::Regex(Box::new(crate::request::variables::regex(loader, word, name, true)?)),
        b"" if name.starts_with(b"@") => Kind::Named,
        b"" if name.starts_with(b"$") => Kind::Predicate(one_variable(loader, word)?),
        b"" => Kind::Prefix { no_regex: false },
        other => {
            let message = format!("invalid location modifier \"{}\"", String::from_utf8_lossy(other));
            return Err(Error::at(&d.args[0], message).hint("the modifiers are =, ^~, ~ and ~*"));
        }
    };
    Ok((kind, name.into()))
}

/// `=/path` and the like in one word.
fn split_modifier(text: &[u8]) -> (&[u8], &[u8]) {
    for modifier in [&b"="[..], b"^~", b"~*", b"~"] {
        if let Some(name) = text.strip_prefix(modifier) {
            return (modifier, name);
        }
    }
    (b"", text)
}

impl Builder {
    fn push(&mut self, node: LocationNode) -> LocationId {
        let id = LocationId(self.locations.len() as u32);
        self.locations.push(node);
        id
    }

    /// Where a location of the same kind and name stands.
    fn duplicate(&mut self, parent: LocationId, kind: &Kind, name: &[u8], d: &Directive) -> Option<Span> {
        let exact = match kind {
            Kind::Exact => true,
            Kind::Prefix { .. } => false,
            _ => return None,
        };
        match self.named.entry((parent.0, exact, name.into())) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(free) => {
                free.insert(d.span());
                None
            }
        }
    }

    fn check_nesting(&self, parent: LocationId, kind: &Kind, name: &[u8], d: &Directive) -> Result<()> {
        let outer = &self.locations[parent.0 as usize];
        let (shown, outer_shown) = (String::from_utf8_lossy(name), String::from_utf8_lossy(&outer.name));
        let error = |message: String| Err(Error::on(d, message));
        match outer.kind {
            Kind::Server => return Ok(()),
            Kind::Exact => {
                return error(format!("location \"{shown}\" cannot be inside the exact location \"{outer_shown}\""));
            }
            Kind::Named => {
                return error(format!("location \"{shown}\" cannot be inside the named location \"{outer_shown}\""));
            }
            _ => {}
        }
        if matches!(kind, Kind::Named) {
            return error(format!("named location \"{shown}\" can be on the server level only"));
        }
        let by_name = |kind: &Kind| !matches!(kind, Kind::Regex(_) | Kind::Predicate(_));
        let is_inside = matches!(outer.kind, Kind::Predicate(_)) || name.starts_with(&outer.name);
        if by_name(kind) && !is_inside {
            return error(format!("location \"{shown}\" is outside location \"{outer_shown}\""));
        }
        Ok(())
    }
}
