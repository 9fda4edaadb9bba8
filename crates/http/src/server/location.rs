//! Locations, and how a request finds its own.
//!
//! All locations of a configuration stand in one list and refer to each other by [`LocationId`]. Those of one level
//! (a server, or a location with nested ones) form a [`Tree`]: exact and prefix names in one sorted list, regexes in
//! the order of the file, named ones by name.

use std::rc::Rc;

use conf::Set;
use expr::vars::Template;

use crate::config::core::CoreLocation;
use crate::phases::{Handler, HeaderFilter, Rules};
use crate::request::Request;
use crate::request::variables::HttpRegex;

/// A location's index in the configuration's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocationId(pub u32);

/// How a location is found.
pub enum Kind {
    /// The server's own level: requests that match no location.
    Server,
    /// `location = /path`.
    Exact,
    /// `location /path` and `location ^~ /path`.
    Prefix {
        /// Whether regexes are not tried once this prefix has matched (`^~`).
        no_regex: bool,
    },
    /// `location ~ regex` and `location ~* regex`.
    Regex(Box<HttpRegex>),
    /// `location $variable`: for requests for which the variable is neither empty nor `0`.
    Predicate(Rc<Template>),
    /// `location @name`.
    Named,
    /// An `if` or `limit_except` block: entered by its owner, never found.
    Inner,
}

/// A location with all that requests in it need, compiled from its configuration.
pub struct Location {
    /// Its place in the list.
    pub id: LocationId,
    /// Its name as written, without modifier; for regexes the pattern.
    pub name: Box<[u8]>,
    /// How it is found.
    pub kind: Kind,
    /// The core module's configuration.
    pub core: Rc<CoreLocation>,
    /// All modules' configuration.
    pub set: Set,
    /// The server level's configuration.
    pub server_set: Set,
    /// Nested locations.
    pub children: Tree,
    /// What runs for requests here.
    pub handlers: Rc<Handlers>,
    /// `limit_except`: the methods that don't enter the block, and the block.
    pub limit_except: Option<(u32, LocationId)>,
}

/// What a location's configuration compiles to: per phase the handlers that it needs, in their order.
#[derive(Default)]
pub struct Handlers {
    /// The rewrite phase.
    pub rewrite: Option<Rc<dyn Rules>>,
    /// Before the rewrite rules of a server; those of its own level count.
    pub post_read: Vec<Rc<dyn Handler>>,
    /// The preaccess phase.
    pub preaccess: Vec<Rc<dyn Handler>>,
    /// The access phase, under `satisfy`.
    pub access: Vec<Rc<dyn Handler>>,
    /// The precontent phase.
    pub precontent: Vec<Rc<dyn Handler>>,
    /// The content phase: the location's own handler alone (proxy_pass and the like), or index, autoindex, static.
    pub content: Vec<Rc<dyn Handler>>,
    /// Header filters, in the order in which they run.
    pub filters: Vec<Rc<dyn HeaderFilter>>,
    /// What runs when a request is over.
    pub log: Vec<Rc<dyn LogHandler>>,
    /// Whether `content` is a handler that takes all requests of its prefix, so that `/dir` is redirected to `/dir/`.
    pub auto_redirect: bool,
    /// Whether `content` is such a location handler; another one replaces it rather than standing beside it.
    pub exclusive: bool,
    /// Whether `content` serves CONNECT: the server takes such requests then.
    pub serves_connect: bool,
}

/// What runs when a request is over.
pub trait LogHandler {
    /// Logs or counts the request.
    fn log(&self, r: &mut Request);
}

/// The locations of one level.
#[derive(Default)]
pub struct Tree {
    /// Exact and prefix locations, sorted by name.
    names: Vec<Node>,
    /// Regex locations in the order of the file.
    pub regexes: Vec<LocationId>,
    /// Locations with a predicate in the order of the file; they come after regexes.
    pub predicates: Vec<LocationId>,
    /// Named locations.
    named: Vec<(Box<[u8]>, LocationId)>,
}

struct Node {
    name: Rc<[u8]>,
    /// The index of the longest other name that is a prefix of this one, plus one; 0 for none.
    parent: u32,
    exact: Option<LocationId>,
    prefix: Option<LocationId>,
    /// The prefix location `name` + `/`, if it redirects `name` to itself.
    redirect: Option<LocationId>,
}

/// The result of a lookup of a path among the names of a tree.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// `=`, the whole path.
    Exact(LocationId),
    /// The longest prefix.
    Prefix(LocationId),
    /// The path lacks only the slash at the end of a location that redirects.
    Redirect(LocationId),
    /// Nothing.
    None,
}

/// One location of a level, for [`Tree::build`].
pub struct Entry<'a> {
    /// Its id.
    pub id: LocationId,
    /// Its name.
    pub name: &'a [u8],
    /// How it is found.
    pub kind: &'a Kind,
    /// Whether it redirects its name without the last slash.
    pub auto_redirect: bool,
}

impl Tree {
    /// Builds the tree of a level.
    pub fn build<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Tree {
        let mut tree = Tree::default();
        let mut sorted: Vec<(Entry<'a>, bool)> = Vec::new();
        for entry in entries {
            match entry.kind {
                Kind::Exact => sorted.push((entry, true)),
                Kind::Prefix { .. } => sorted.push((entry, false)),
                Kind::Regex(_) => tree.regexes.push(entry.id),
                Kind::Predicate(_) => tree.predicates.push(entry.id),
                Kind::Named => tree.named.push((entry.name.into(), entry.id)),
                Kind::Server | Kind::Inner => {}
            }
        }
        sorted.sort_by(|a, b| a.0.name.cmp(b.0.name));
        for (entry, exact) in sorted {
            tree.add(entry.name, |node| {
                *(if exact { &mut node.exact } else { &mut node.prefix }) = Some(entry.id);
            });
            if let (true, Some((b'/', short))) = (entry.auto_redirect, entry.name.split_last())
                && !short.is_empty()
            {
                tree.add(short, |node| node.redirect = Some(entry.id));
            }
        }
        tree.names.sort_by(|a, b| a.name.cmp(&b.name));
        tree.link();
        tree
    }

    fn add(&mut self, name: &[u8], change: impl FnOnce(&mut Node)) {
        // Names arrive nearly sorted: an equal one is among the last few.
        let known = self.names.iter_mut().rev().take(4).find(|node| *node.name == *name);
        if let Some(node) = known {
            return change(node);
        }
        let mut node = Node { name: name.into(), parent: 0, exact: None, prefix: None, redirect: None };
        change(&mut node);
        self.names.push(node);
    }

    fn link(&mut self) {
        // `a` may stand apart from its double that came through a redirect: join them.
        self.names.dedup_by(|b, a| {
            let same = a.name == b.name;
            if same {
                a.exact = a.exact.or(b.exact);
                a.prefix = a.prefix.or(b.prefix);
                a.redirect = a.redirect.or(b.redirect);
            }
            same
        });
        let mut open: Vec<usize> = Vec::new();
        for i in 0..self.names.len() {
            while open.last().is_some_and(|&top| !self.names[i].name.starts_with(&self.names[top].name)) {
                open.pop();
            }
            self.names[i].parent = open.last().map_or(0, |&top| top as u32 + 1);
            open.push(i);
        }
    }

    /// Finds the exact location of `path`, else that of its longest prefix.
    pub fn find(&self, path: &[u8]) -> Found {
        let after = self.names.partition_point(|node| *node.name <= *path);
        let mut at = after;
        while at > 0 {
            let node = &self.names[at - 1];
            if path.starts_with(&node.name) {
                if node.name.len() == path.len() {
                    if let Some(id) = node.exact {
                        return Found::Exact(id);
                    }
                    if let (Some(id), None) = (node.redirect, node.prefix) {
                        return Found::Redirect(id);
                    }
                }
                if let Some(id) = node.prefix {
                    return Found::Prefix(id);
                }
            }
            at = node.parent as usize;
        }
        Found::None
    }

    /// Finds a named location; `name` includes the `@`.
    pub fn named(&self, name: &[u8]) -> Option<LocationId> {
        self.named.iter().find(|(own, _)| **own == *name).map(|(_, id)| *id)
    }

    /// Whether all locations of the level are found by their names.
    pub fn is_by_name(&self) -> bool {
        self.regexes.is_empty() && self.predicates.is_empty()
    }

    /// Whether the level has no location at all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.is_by_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[(&'static str, bool)]) -> Tree {
        let kinds: Vec<Kind> = names
            .iter()
            .map(|(name, _)| if name.starts_with('=') { Kind::Exact } else { Kind::Prefix { no_regex: false } })
            .collect();
        let entries = names.iter().zip(&kinds).enumerate().map(|(i, ((name, redirect), kind))| Entry {
            id: LocationId(i as u32),
            name: name.trim_start_matches('=').as_bytes(),
            kind,
            auto_redirect: *redirect,
        });
        Tree::build(entries)
    }

    #[test]
    fn finds_by_nginx_rules() {
        let names = [("/", false), ("=/", false), ("/a", false), ("/a/b/", true), ("=/a/b/", false), ("/a/bc", false)];
        let tree = tree(&names);
        let check = |path: &str, expect: Found| assert_eq!(tree.find(path.as_bytes()), expect, "{path}");
        check("/", Found::Exact(LocationId(1)));
        check("/x", Found::Prefix(LocationId(0)));
        check("/a", Found::Prefix(LocationId(2)));
        check("/ab", Found::Prefix(LocationId(2)));
        check("/a/b", Found::Redirect(LocationId(3)));
        check("/a/b/", Found::Exact(LocationId(4)));
        check("/a/b/c", Found::Prefix(LocationId(3)));
        check("/a/bcd", Found::Prefix(LocationId(5)));
        check("/a/bb", Found::Prefix(LocationId(2)));
        check("x", Found::None);
    }

    #[test]
    fn a_location_of_the_short_name_is_not_redirected() {
        let tree = tree(&[("/a/", true), ("/a", false)]);
        assert_eq!(tree.find(b"/a"), Found::Prefix(LocationId(1)));
    }

    #[test]
    fn many_locations() {
        let names: Vec<String> = (0..20_000).map(|i| format!("/{i}/")).collect();
        let kind = Kind::Prefix { no_regex: false };
        let entries = names.iter().enumerate().map(|(i, name)| Entry {
            id: LocationId(i as u32),
            name: name.as_bytes(),
            kind: &kind,
            auto_redirect: true,
        });
        let tree = Tree::build(entries);
        for (i, name) in names.iter().enumerate() {
            assert_eq!(tree.find(format!("{name}x").as_bytes()), Found::Prefix(LocationId(i as u32)));
            assert_eq!(tree.find(name.trim_end_matches('/').as_bytes()), Found::Redirect(LocationId(i as u32)));
        }
    }
}
