//! The parameters of a request to an application: `…_param` of all protocols that have it.
//!
//! A location's parameters are compiled at start: constant ones are encoded then, in the protocol's form. The client's
//! fields follow them as `HTTP_…`, but for those that a parameter replaces.

use std::rc::Rc;

use common::vars::Late;
use conf::values::invalid_parameter;
use conf::{Args, Directive, Loader, Result};
use expr::vars::Template;
use http::HttpProto;
use http::config::core::EVERYWHERE;
use http::exchange::Exchange;
use http::request::Request;
use wire::h1::{HeaderSpan, KnownHeader, Method};

use crate::request_fields::VALUE;

conf::table! {
    /// The parameters that applications get.
    pub groups ParamsConf, raw ParamsRaw;

    group all {
        /// Adds a parameter to requests.
        ///
        /// Form: `{}param name value [if_not_empty]`
        ///
        /// - `name`: the name. One of a client's field (`HTTP_…`) replaces the field.
        /// - `value`: the value; it may contain variables.
        /// - `if_not_empty`: the parameter is left out where its value is empty.
        ///
        /// Effect: parameters are sent in the order of the directives, then the client's fields as `HTTP_…`. They are
        /// inherited by a level that has none of its own. `HTTP_HOST` is always sent.
        ///
        /// ```nginx
        /// {}param HTTPS $https if_not_empty;
        /// ```
        "param" in EVERYWHERE, Args::between(2, 3), default computed("`{}param HTTP_HOST $host$is_request_port$request_port;`"),
            list(param) param: Param;
    }
}

/// One `…_param`.
#[derive(Clone, Debug)]
pub struct Param {
    name: Vec<u8>,
    value: Late,
    if_not_empty: bool,
}

fn param(_: &mut Loader<'_>, d: &Directive) -> Result<Param> {
    if let Some(word) = d.args.get(2)
        && *word != "if_not_empty"
    {
        return Err(invalid_parameter(word));
    }
    let (name, value) = (d.arg(0).text.clone(), Late::of(d, d.arg(1)));
    Ok(Param { name, value, if_not_empty: d.args.len() > 2 })
}

const HOST: &[u8] = b"HTTP_HOST";
const HOST_VALUE: &[u8] = b"$host$is_request_port$request_port";
/// What names of a client's fields begin with.
const OF_CLIENT: &[u8] = b"HTTP_";

/// Whether an application is asked for a head alone. A response that is stored has a body if the application sends one.
pub(crate) fn asks_for_head(r: &Request, exchange: &Exchange) -> bool {
    r.method == Method::Head && !exchange.as_get.get() && !exchange.whole.get()
}

/// Appends a pair to a block in the form of a protocol.
pub(crate) type Encode = fn(name: &[u8], value: &[u8], block: &mut Vec<u8>);

/// What is sent of a location's parameters.
pub(crate) struct Params {
    encode: Encode,
    parts: Vec<Part>,
    /// Parameters that replace fields of the client.
    replaced: Vec<Vec<u8>>,
}

enum Part {
    /// Parameters with constant values, encoded.
    Encoded(Vec<u8>),
    Value {
        name: Vec<u8>,
        value: Rc<Template>,
        if_not_empty: bool,
    },
}

impl Params {
    /// Compiles a location's parameters for a protocol.
    pub(crate) fn compile(conf: &ParamsConf, encode: Encode, loader: &mut Loader<'_>) -> Result<Params> {
        let mut params = Params { encode, parts: Vec::new(), replaced: vec![HOST.to_vec()] };
        for Param { name, value, if_not_empty } in conf.param.iter() {
            params.add(name, value.compile::<HttpProto>(loader)?, *if_not_empty);
        }
        if !conf.param.iter().any(|param| param.name == HOST) {
            params.add(HOST, host(loader)?, false);
        }
        Ok(params)
    }

    fn add(&mut self, name: &[u8], value: Rc<Template>, if_not_empty: bool) {
        if name.starts_with(OF_CLIENT) && name != HOST {
            self.replaced.push(name.to_vec());
        }
        let of_client = name.len() > OF_CLIENT.len() && name.starts_with(OF_CLIENT);
        match (value.is_const(), self.parts.last_mut()) {
            // A client's field that is set to nothing isn't sent at all: `fastcgi_param HTTP_PROXY ""`.
            (Some(b""), _) if if_not_empty || of_client => {}
            (Some(text), Some(Part::Encoded(encoded))) => (self.encode)(name, text, encoded),
            (Some(text), _) => {
                let mut encoded = Vec::new();
                (self.encode)(name, text, &mut encoded);
                self.parts.push(Part::Encoded(encoded));
            }
            (None, _) => self.parts.push(Part::Value { name: name.to_vec(), value, if_not_empty }),
        }
    }

    /// The block of a request's parameters, with the client's fields if they are passed.
    pub(crate) fn write(&self, r: &mut Request, exchange: &Exchange, pass_fields: bool) -> Vec<u8> {
        let mut block = Vec::with_capacity(1024);
        // The memory of values and names, one after the other.
        let mut memory = Vec::with_capacity(VALUE);
        for part in &self.parts {
            match part {
                Part::Encoded(encoded) => block.extend_from_slice(encoded),
                Part::Value { name, value, if_not_empty } => {
                    memory.clear();
                    value.render(r, &mut memory);
                    if !(*if_not_empty && memory.is_empty()) {
                        (self.encode)(name, &memory, &mut block);
                    }
                }
            }
        }
        for (_, name, value) in exchange.conditions().into_iter().flatten() {
            memory.clear();
            parameter_name(name.as_bytes(), &mut memory);
            if !self.replaced.contains(&memory) {
                (self.encode)(&memory, &value, &mut block);
            }
        }
        if pass_fields {
            self.write_fields(r, exchange, memory, &mut block);
        }
        block
    }

    /// The client's fields, those of one name joined.
    fn write_fields(&self, r: &Request, exchange: &Exchange, mut name: Vec<u8>, block: &mut Vec<u8>) {
        let fields = &r.line.headers;
        if fields.len() > FEW {
            return self.write_many_fields(r, exchange, block);
        }
        for (n, field) in fields.iter().enumerate() {
            let own = field.name.of(&r.head);
            if !exchange.passes(field.known)
                || fields.iter().take(n).any(|other| same_parameter(other.name.of(&r.head), own))
            {
                continue;
            }
            name.clear();
            parameter_name(own, &mut name);
            if self.replaced.contains(&name) {
                continue;
            }
            let more = fields.iter().skip(n + 1).filter(|other| same_parameter(other.name.of(&r.head), own));
            self.write_joined(r, &name, field, more, block);
        }
    }

    /// The same for many: a thousand fields aren't compared each with each.
    fn write_many_fields(&self, r: &Request, exchange: &Exchange, block: &mut Vec<u8>) {
        let fields = &r.line.headers;
        let named = |field: &HeaderSpan| {
            let mut name = Vec::new();
            parameter_name(field.name.of(&r.head), &mut name);
            name
        };
        let names: Vec<Vec<u8>> = fields.iter().map(named).collect();
        let mut order: Vec<usize> = (0..fields.len()).collect();
        order.sort_by_key(|n| &names[*n]);
        let mut groups: Vec<&[usize]> = order.chunk_by(|one, other| names[*one] == names[*other]).collect();
        groups.sort_unstable();
        for group in groups {
            let [first, more @ ..] = group else { continue };
            let (name, field) = (&names[*first], &fields[*first]);
            if exchange.passes(field.known) && !self.replaced.contains(name) {
                self.write_joined(r, name, field, more.iter().map(|n| &fields[*n]), block);
            }
        }
    }

    /// A parameter of a field, and of further ones that have the same.
    fn write_joined<'a>(
        &self,
        r: &Request,
        name: &[u8],
        field: &HeaderSpan,
        more: impl Iterator<Item = &'a HeaderSpan>,
        block: &mut Vec<u8>,
    ) {
        let value = field.value.of(&r.head);
        let mut more = more.peekable();
        if more.peek().is_none() {
            return (self.encode)(name, value, block);
        }
        let separator: &[u8] = if field.known == KnownHeader::Cookie { b"; " } else { b", " };
        let mut joined = value.to_vec();
        for other in more {
            joined.extend_from_slice(separator);
            joined.extend_from_slice(other.value.of(&r.head));
        }
        (self.encode)(name, &joined, block);
    }
}

/// As many fields are compared each with each.
const FEW: usize = 32;

/// The template of the default `HTTP_HOST`, which all locations share.
fn host(loader: &mut Loader<'_>) -> Result<Rc<Template>> {
    #[derive(Default)]
    struct Host(Option<Rc<Template>>);
    if let Some(template) = &loader.store.entry::<Host>().0 {
        return Ok(template.clone());
    }
    let template = http::request::variables::template_at(loader, conf::Span::default(), HOST_VALUE)?;
    loader.store.entry::<Host>().0 = Some(template.clone());
    Ok(template)
}

/// `User-Agent` as `HTTP_USER_AGENT`.
fn parameter_name(name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(OF_CLIENT);
    out.extend(name.iter().map(|byte| parameter_byte(*byte)));
}

fn parameter_byte(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }
}

/// Whether two names of fields make the same name of a parameter.
fn same_parameter(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| parameter_byte(*one) == parameter_byte(*other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters() {
        let mut name = Vec::new();
        parameter_name(b"User-Agent", &mut name);
        assert_eq!(name, b"HTTP_USER_AGENT");
        for (one, other, expect) in [
            ("X-A", "x-a", true),
            ("X-A", "X_a", true),
            ("X-A", "X-B", false),
            ("X-A", "X-AB", false),
            ("A-", "A", false),
        ] {
            assert_eq!(same_parameter(one.as_bytes(), other.as_bytes()), expect, "{one} {other}");
        }
    }
}
