//! `json_set`: values of a JSON document that stands in a variable.
//!
//! All values of one source are found in one pass, when the first of them is asked for. A document that is invalid has
//! none; the request goes on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::vars::Variable;
use conf::table::duplicate;
use conf::values::number_between;
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use expr::vars::{Flags, Template};
use http::HttpProto;
use http::module::HttpModule;
use http::request::Request;
use http::request::variables::{Definition, Getter, define, one_variable, put};
use wire::json::{self, Paths, Values};

/// The module.
pub struct Json;

const MODULE: &str = "ngx_http_json_module";

conf::table! {
    /// Values are defined for all of `http {}`.
    pub struct JsonConf, raw JsonRaw, module "ngx_http_json_module", level HTTP Main;

    /// Limits how deep JSON documents may be nested.
    ///
    /// Form: `json_max_depth number`
    ///
    /// - `number`: objects and arrays inside one another, from 1 to 256.
    ///
    /// Effect: a document that is nested deeper is invalid, and has no values. It holds for every `json_set`.
    ///
    /// ```nginx
    /// json_max_depth 8;
    /// ```
    "json_max_depth" in Context::HTTP, Args::exactly(1), default computed("32"),
        block(json_max_depth);
    /// Defines a variable whose value is that at a path of a JSON document.
    ///
    /// Form: `json_set $variable $source path`
    ///
    /// - `$variable`: the variable that is defined.
    /// - `$source`: the variable that holds the document.
    /// - `path`: names of members with dots between them, and indices of elements, from 0 on, in brackets: `a.b[0]`. A name
    ///   with other characters stands in brackets and quotes, as a string of JSON: `["a.b"]`; put the whole path in
    ///   single quotes then.
    ///
    /// Effect: strings are decoded; numbers, `true`, `false`, `null`, objects and arrays are given as they stand in the
    /// document. The variable is empty if there is no value at the path or the document is invalid. If members of one
    /// name give a path several values, the last value counts: `a.b` is 1 in `{"a":{"b":1},"a":{"c":2}}`.
    ///
    /// Cost: the document is read once for a request, when the first of its values is used, for all of them.
    ///
    /// Danger: `$request_body` is empty before the body is read, and stays so for the request: use
    /// `client_body_early_read` with it.
    ///
    /// ```nginx
    /// client_body_early_read on;
    /// json_set $tool $request_body params.name;
    /// server {
    ///     location $tool {
    ///         return 200 $tool;
    ///     }
    /// }
    /// ```
    "json_set" in Context::HTTP, Args::exactly(3), default none,
        block(json_set);
}

/// The most depth without a directive.
const DEPTH: usize = 32;

/// What the configuration says so far.
#[derive(Default)]
struct Sources {
    list: Vec<Rc<Source>>,
    /// The variables that are defined.
    names: Vec<Vec<u8>>,
    depth: Rc<Cell<Option<usize>>>,
}

/// A variable with documents.
struct Source {
    number: usize,
    name: Vec<u8>,
    document: Rc<Template>,
    /// Complete once the configuration is.
    paths: RefCell<Paths>,
    depth: Rc<Cell<Option<usize>>>,
}

/// A variable that `json_set` defines.
struct Value {
    source: Rc<Source>,
    /// The number of its path.
    path: usize,
}

fn json_max_depth(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let depth = number_between(1, 256)(loader, d)?;
    let known = &loader.store.entry::<Sources>().depth;
    if known.get().is_some() {
        return Err(duplicate(d));
    }
    known.set(Some(depth));
    Ok(())
}

fn json_set(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let (variable, source, path) = (d.arg(0), d.arg(1), d.arg(2));
    let document = one_variable(loader, source)?;
    if path.text.is_empty() {
        return Err(Error::at(path, "empty json_set path"));
    }
    let steps = json::parse_path(&path.text);
    let steps = steps.ok_or_else(|| Error::at(path, format!("invalid json_set path \"{}\"", path.lossy())))?;
    let sources = loader.store.entry::<Sources>();
    if sources.names.contains(&variable.text) {
        let name = variable.lossy();
        let name = name.trim_start_matches('$');
        return Err(Error::at(variable, format!("json_set variable \"{name}\" is already defined")));
    }
    sources.names.push(variable.text.clone());
    let known = sources.list.iter().find(|known| known.name == source.text).cloned();
    let source = known.unwrap_or_else(|| {
        let (number, name, depth) = (sources.list.len(), source.text.clone(), sources.depth.clone());
        let source = Rc::new(Source { number, name, document, paths: RefCell::default(), depth });
        sources.list.push(source.clone());
        source
    });
    let path = source.paths.borrow_mut().add(&steps);
    let getter = Getter::Object(Rc::new(Value { source, path }));
    let text = "The value that `json_set` finds in a document. Empty if there is none, or the document is invalid.";
    define(loader, variable, Flags::CHANGEABLE, Definition { getter, setter: None, module: MODULE, text })
}

impl HttpModule for Json {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<JsonConf>();
    }
}

/// The values of a request's documents, by the number of their source; `None` for documents that weren't read.
#[derive(Default)]
struct Read(Vec<Option<Rc<Values>>>);

impl Variable<HttpProto> for Value {
    fn value(&self, r: &mut Request, out: &mut Vec<u8>) -> bool {
        let values = self.source.values(r);
        values.get(self.path).and_then(|value| value.as_deref()).is_some_and(|value| put(out, value))
    }
}

impl Source {
    fn values(&self, r: &mut Request) -> Rc<Values> {
        let known = r.find_lasting_slot::<Read>().and_then(|read| read.0.get(self.number)?.clone());
        if let Some(values) = known {
            return values;
        }
        let document = r.render(&self.document);
        let most = self.depth.get().unwrap_or(DEPTH);
        let values = Rc::new(self.paths.borrow().extract(&document, most).unwrap_or_default());
        let read = &mut r.lasting_slot::<Read>().0;
        if read.len() <= self.number {
            read.resize(self.number + 1, None);
        }
        read[self.number] = Some(values.clone());
        values
    }
}
