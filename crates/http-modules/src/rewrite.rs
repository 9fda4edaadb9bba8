//! `rewrite`, `return`, `if`, `set`, `break`: rules that act on a request's URI before its location is settled.
//!
//! The rules of a level become one list of operations in the order of the file. An `if` is a jump over its own rules,
//! which stand in the same list; entering it changes the request's location to the block's own.

use std::collections::HashMap;
use std::rc::Rc;

use buf::{Bytes, Chain};
use conf::values::flag;
use conf::{Args, Context, Directive, Error, Loader, Registry, Result, Word};
use engine::log::{Errno, Level};
use expr::vars::{Flags, Part, Session, Template, VarId};
use http::config::blocks;
use http::fault::Fault;
use http::files::open_file::{Files, Kind as FileKind, errno};
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{self, Ruled};
use http::request::variables::{self, HttpRegex, Setter, Value, named_variable, template_of};
use http::request::{Request, UriFit, UriSource};
use http::response::error_page::shown_status;
use http::response::{Body, reason};
use http::server::location::{Handlers, Kind, LocationId};
use wire::h1::KnownHeader;

/// The module.
pub struct Rewrite;

const RULES: Context = Context::SERVER.or(Context::SERVER_IF).or(Context::LOCATION).or(Context::LOCATION_IF);
const RULES_AND_HTTP: Context = RULES.or(Context::HTTP);

conf::table! {
    /// How rules are logged, and the rules themselves.
    pub struct RewriteConf, raw RewriteRaw, module "ngx_http_rewrite_module", level HTTP Location;

    /// Changes the URI of a request if a regex matches it, or redirects the client.
    ///
    /// Form: `rewrite regex replacement [last | break | redirect | permanent]`
    ///
    /// - `regex`: is matched with the decoded URI, without its arguments.
    /// - `replacement`: the new URI, which may contain captures (`$1`) and variables. The request's arguments are
    ///   appended, unless it ends with `?`. One that begins with `http://`, `https://` or `$scheme` redirects the
    ///   client with status 302.
    /// - `last`: ends the rules, and looks for a location for the new URI.
    /// - `break`: ends the rules, and stays in this location.
    /// - `redirect`: redirects the client with status 302.
    /// - `permanent`: redirects the client with status 301.
    ///
    /// Effect: rules are run in the order of the file, those of the server first. Without a flag the next rule sees the
    /// new URI, and after the last rule a location is looked for. `$request_uri` stays as the client sent it.
    ///
    /// Cost: the regex is tried for each request of the level.
    ///
    /// Danger: a `last` in a location whose new URI leads to the same location goes round until it ends with status
    /// 500, after ten changes: use `break` there. Browsers keep a `permanent` redirect, so a wrong one stays with them.
    ///
    /// ```nginx
    /// server {
    ///     rewrite ^/download/(.*)/media/(.*)\..*$ /download/$1/mp3/$2.mp3 last;
    ///     location /old/ {
    ///         rewrite ^/old/(.*)$ /new/$1 permanent;
    ///     }
    /// }
    /// ```
    "rewrite" in RULES, Args::between(2, 3), default none,
        block(rewrite);
    /// Ends the request with a status, a text or a redirect.
    ///
    /// Form: `return code [text] | code url | url`
    ///
    /// - `code`: a status up to 999. `444` closes the connection without a response.
    /// - `text`: the body of the response, which may contain variables; its type is that of the URI in `types`, or
    ///   `default_type`. Without it an error or a redirect has its page (or that of `error_page`), and any other status
    ///   an empty body.
    /// - `url`: with the codes 301, 302, 303, 307 and 308 where the client is redirected to, which may contain
    ///   variables; a path is completed by `absolute_redirect`. Without a code, one that begins with `http://`,
    ///   `https://` or `$scheme` redirects with 302.
    ///
    /// Effect: rules that follow it aren't run, and the location's handler neither.
    ///
    /// Danger: a redirect to a URL in which the client controls the host (`$host`, `$arg_x`) lets others send users to
    /// their own site.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8080;
    ///     server_name example.com;
    ///     return 301 https://example.com$request_uri;
    /// }
    /// ```
    "return" in RULES, Args::between(1, 2), default none,
        block(return_);
    /// Ends the rules of the level: no further `rewrite`, `set`, `if` or `return` of it is run.
    ///
    /// Effect: the request stays in its location, even if a `rewrite` has changed the URI. What is no rule, such as
    /// `proxy_pass`, holds as before.
    ///
    /// ```nginx
    /// location / {
    ///     if ($arg_slow) {
    ///         set $limit_rate 10k;
    ///         break;
    ///     }
    ///     rewrite ^/a/(.*)$ /b/$1 break;
    /// }
    /// ```
    "break" in RULES, Args::exactly(0), default none,
        block(break_);
    /// Runs rules and uses directives under a condition.
    ///
    /// Form: `if (condition)`
    ///
    /// - `$variable`: the variable is neither empty nor `0`.
    /// - `$variable = text`, `$variable != text`: the variable is equal to the text, or isn't.
    /// - `$variable ~ regex`, `$variable !~ regex`: the regex matches the variable, or doesn't; `~*` and `!~*` ignore
    ///   case. Captures may be used in the block.
    /// - `-f path`, `!-f path`: there is a file, or there is none; `-d` is for folders, `-e` for either, `-x` for what
    ///   may be executed.
    ///
    /// Effect: the condition is tested when the rules of the level run, before access is checked. If it holds, the
    /// rules in the block are run; in a location the request then follows the directives in the block, which inherits
    /// from the location. Of several blocks of a location that hold, the last one counts.
    ///
    /// Cost: a test for each request of the level; with a path a look at the file system, unless `open_file_cache` has
    /// it.
    ///
    /// Danger: in a location only `return` and `rewrite … last` are free of surprises. Other directives in two blocks
    /// don't add up, and `try_files` of the location isn't run in a block. A `map` is often the better way.
    ///
    /// ```nginx
    /// server {
    ///     if ($request_method = TRACE) {
    ///         return 405;
    ///     }
    ///     location / {
    ///         if ($http_cookie ~* "id=([^;]+)") {
    ///             set $id $1;
    ///         }
    ///     }
    /// }
    /// ```
    "if" in Context::SERVER.or(Context::LOCATION), Args::at_least(1).block(), default none,
        block(if_);
    /// Sets a variable.
    ///
    /// Form: `set $variable value`
    ///
    /// - `$variable`: its name. It is declared for the whole configuration, and is empty in requests that don't reach
    ///   the rule. Some variables of the server can be set, `$limit_rate` and `$args` for instance.
    /// - `value`: a text, which may contain variables and captures.
    ///
    /// Effect: the value is computed when the rule runs, in the order of the rules.
    ///
    /// ```nginx
    /// server {
    ///     location ~ ^/users/(\w+)/ {
    ///         set $user $1;
    ///         add_header X-User $user;
    ///     }
    /// }
    /// ```
    "set" in RULES, Args::exactly(2), default none,
        block(set);
    /// Logs what `rewrite` and `if` with a regex do, at level `notice`.
    ///
    /// Effect: the error log shows for each regex whether it matches, and what the URI becomes. `error_log` must have
    /// the level `notice` or a lower one.
    ///
    /// Cost: a line, and a system call, for each rule of each request: use it to look for faults only.
    ///
    /// ```nginx
    /// error_log logs/rewrite.log notice;
    /// server {
    ///     rewrite_log on;
    ///     rewrite ^/a$ /b last;
    /// }
    /// ```
    "rewrite_log" in RULES_AND_HTTP, Args::FLAG, default "off",
        scalar(flag) rewrite_log: bool = false;
}

/// The rules of all levels, while the configuration is read.
#[derive(Default)]
struct Rules {
    by_location: HashMap<u32, Vec<Op>>,
}

/// What `set` stores.
enum Assigned {
    /// Always the same: all requests share it.
    Constant(Bytes),
    Template(Rc<Template>),
}

enum Op {
    Rewrite(RewriteOp),
    Return(Rc<ReturnOp>),
    Break,
    Set {
        id: VarId,
        setter: Option<Setter>,
        value: Assigned,
    },
    /// Enters `location`, or goes on at `otherwise` (an index) if the condition fails.
    If {
        condition: Condition,
        location: LocationId,
        otherwise: usize,
    },
}

struct RewriteOp {
    regex: HttpRegex,
    replacement: Rc<Template>,
    /// Whether the request's arguments are appended: not if the replacement ends with `?`.
    keep_args: bool,
    redirect: Option<u16>,
    last: Last,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// The next rule sees the changed URI; then the location is found again.
    Goes,
    /// The location is found again at once.
    Again,
    /// The rules end, the location stays.
    Break,
}

struct ReturnOp {
    status: u16,
    text: Option<Text>,
}

/// The text that `return` sends: fixed if it has no variables.
enum Text {
    Fixed(Bytes),
    Made(Rc<Template>),
}

impl Text {
    fn new(template: Rc<Template>) -> Text {
        match template.is_const() {
            Some(text) => Text::Fixed(Bytes::from(text.to_vec())),
            None => Text::Made(template),
        }
    }
}

enum Condition {
    Set(Rc<Template>),
    Equal { left: Rc<Template>, right: Rc<Template>, negative: bool },
    Regex { left: Rc<Template>, regex: HttpRegex, negative: bool },
    File { path: Rc<Template>, test: FileTest, negative: bool },
}

#[derive(Clone, Copy)]
enum FileTest {
    Plain,
    Directory,
    Exists,
    Executable,
}

impl HttpModule for Rewrite {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<RewriteConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if let Some(ops) = cx.loader.store.entry::<Rules>().by_location.remove(&cx.id.0) {
            let files = Files::of(cx.set, cx.loader);
            out.rewrite = Some(Rc::new(Program { ops, files }));
        }
        Ok(())
    }
}

/// The list that rules of the current level go to: that of the location which isn't an `if`.
fn push(loader: &mut Loader<'_>, op: Op) -> usize {
    let id = blocks::rules_owner(loader);
    let ops = loader.store.entry::<Rules>().by_location.entry(id.0).or_default();
    ops.push(op);
    ops.len() - 1
}

fn rewrite(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let regex = variables::regex(loader, d.arg(0), &d.arg(0).text, false)?;
    let mut text = &d.arg(1).text[..];
    if text.is_empty() {
        return Err(Error::at(d.arg(1), "empty replacement"));
    }
    let mut redirect = is_absolute(text).then_some(302);
    let mut last = if redirect.is_some() { Last::Again } else { Last::Goes };
    if let Some(word) = d.args.get(2) {
        match &word.text[..] {
            b"last" => last = Last::Again,
            b"break" => last = Last::Break,
            b"redirect" => (redirect, last) = (Some(302), Last::Again),
            b"permanent" => (redirect, last) = (Some(301), Last::Again),
            _ => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
        }
    }
    let keep_args = match text.split_last() {
        Some((b'?', rest)) => {
            text = rest;
            false
        }
        _ => true,
    };
    let replacement = template_of(loader, d, text)?;
    push(loader, Op::Rewrite(RewriteOp { regex, replacement, keep_args, redirect, last }));
    Ok(())
}

fn is_absolute(text: &[u8]) -> bool {
    [&b"http://"[..], b"https://", b"$scheme"].iter().any(|start| text.starts_with(start))
}

fn return_(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let first = d.arg(0);
    let op = match buf::parse::parse_number(&first.text) {
        Some(status) if status <= 999 => {
            let text = d.args.get(1).map(|word| template_of(loader, d, &word.text)).transpose()?.map(Text::new);
            ReturnOp { status: status as u16, text }
        }
        _ if d.args.len() == 1 && is_absolute(&first.text) => {
            ReturnOp { status: 302, text: Some(Text::new(template_of(loader, d, &first.text)?)) }
        }
        _ => return Err(Error::at(first, format!("invalid return code \"{}\"", first.lossy()))),
    };
    push(loader, Op::Return(Rc::new(op)));
    Ok(())
}

fn break_(loader: &mut Loader<'_>, _: &Directive) -> Result<()> {
    push(loader, Op::Break);
    Ok(())
}

fn set(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let (id, setter) = variables::storable(loader, d.arg(0), Flags::WEAK)?;
    let value = template_of(loader, d, &d.arg(1).text)?;
    let value = match value.is_const() {
        Some(text) => Assigned::Constant(Bytes::from(text.to_vec())),
        None => Assigned::Template(value),
    };
    push(loader, Op::Set { id, setter, value });
    Ok(())
}

fn if_(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let condition = condition(loader, d)?;
    let at = push(loader, Op::If { condition, location: LocationId(0), otherwise: 0 });
    let context = match loader.context() {
        Context::SERVER => Context::SERVER_IF,
        _ => Context::LOCATION_IF,
    };
    let name = blocks::current_location(loader).0;
    let inner = blocks::inner(loader, d, Kind::Inner, name, context)?;
    let id = blocks::rules_owner(loader);
    let ops = loader.store.entry::<Rules>().by_location.entry(id.0).or_default();
    let end = ops.len();
    if let Some(Op::If { location, otherwise, .. }) = ops.get_mut(at) {
        (*location, *otherwise) = (inner, end);
    }
    Ok(())
}

/// The words between the parentheses, which may stand alone or be joined to the first and last word.
fn condition_words(d: &Directive) -> Result<Vec<Word>> {
    let mut words = d.args.clone();
    let invalid = |word: &Word| Error::at(word, format!("invalid condition \"{}\"", word.lossy()));
    let first = words.first_mut().ok_or_else(|| Error::on(d, "invalid condition"))?;
    let text = first.text.strip_prefix(b"(").map(<[u8]>::to_vec).ok_or_else(|| invalid(d.arg(0)))?;
    first.text = text;
    let first = first.clone();
    let last = words.last_mut().ok_or_else(|| Error::on(d, "invalid condition"))?;
    let text = last.text.strip_suffix(b")").map(<[u8]>::to_vec);
    last.text = text.ok_or_else(|| invalid(last))?;
    words.retain(|word| !word.text.is_empty() || word.quoted);
    if words.is_empty() {
        // `( )`: the bracket that closes is taken for the condition.
        return Err(if d.args.len() > 1 { invalid(d.arg(d.args.len() - 1)) } else { invalid(&first) });
    }
    Ok(words)
}

fn condition(loader: &mut Loader<'_>, d: &Directive) -> Result<Condition> {
    let words = condition_words(d)?;
    let first = &words[0];
    let invalid = |word: &Word| Error::at(word, format!("invalid condition \"{}\"", word.lossy()));
    if first.text.len() > 1 && first.text.starts_with(b"$") {
        let left = named_variable(loader, first)?;
        return match &words[1..] {
            [] => Ok(Condition::Set(left)),
            [operator, right] => comparison(loader, d, left, operator, right),
            rest => Err(match rest.iter().find(|word| is_connective(word)) {
                Some(word) => invalid(first).hint(ONE_TEST).caret(word.span),
                None => invalid(first),
            }),
        };
    }
    let (negative, test) = match first.text.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, &first.text[..]),
    };
    let test = match test {
        b"-f" => FileTest::Plain,
        b"-d" => FileTest::Directory,
        b"-e" => FileTest::Exists,
        b"-x" => FileTest::Executable,
        _ => return Err(invalid(first)),
    };
    let [_, path] = &words[..] else { return Err(invalid(first)) };
    Ok(Condition::File { path: template_of(loader, d, &path.text)?, test, negative })
}

fn comparison(
    loader: &mut Loader<'_>,
    d: &Directive,
    left: Rc<Template>,
    operator: &Word,
    right: &Word,
) -> Result<Condition> {
    let regex = |loader: &mut Loader<'_>, caseless| variables::regex(loader, right, &right.text, caseless);
    Ok(match &operator.text[..] {
        b"=" => Condition::Equal { left, right: template_of(loader, d, &right.text)?, negative: false },
        b"!=" => Condition::Equal { left, right: template_of(loader, d, &right.text)?, negative: true },
        b"~" => Condition::Regex { left, regex: regex(loader, false)?, negative: false },
        b"~*" => Condition::Regex { left, regex: regex(loader, true)?, negative: false },
        b"!~" => Condition::Regex { left, regex: regex(loader, false)?, negative: true },
        b"!~*" => Condition::Regex { left, regex: regex(loader, true)?, negative: true },
        text => {
            let error = Error::at(operator, format!("unexpected \"{}\" in condition", operator.lossy()));
            return Err(match text {
                b"==" | b"===" | b"eq" | b"is" => error.hint("equality is written \"=\""),
                b"!==" | b"<>" | b"ne" => error.hint("inequality is written \"!=\""),
                b"=~" => error.hint("a regex is matched with \"~\", or \"~*\" in any case"),
                _ if is_connective(operator) => error.hint(ONE_TEST),
                _ => error.hint("the operators are =, !=, ~, ~*, !~ and !~*"),
            });
        }
    })
}

/// Whether a word joins two conditions in other languages.
fn is_connective(word: &Word) -> bool {
    matches!(&word.text[..], b"&&" | b"||" | b"and" | b"or" | b"AND" | b"OR")
}

const ONE_TEST: &str = "a condition is one test: join several with a \"map\" of their variables, or with \"set\"";

/// The rules of one level.
struct Program {
    ops: Vec<Op>,
    files: Files,
}

impl phases::Rules for Program {
    fn run(&self, r: &mut Request) -> Ruled {
        let (mut moves, mut lost_handler) = (false, false);
        let mut at = 0;
        while let Some(op) = self.ops.get(at) {
            at += 1;
            match op {
                Op::Break => {
                    // The request stays in the location although the URI no longer begins with its name.
                    if std::mem::take(&mut moves) {
                        r.uri_fit = UriFit::Changed;
                    }
                    break;
                }
                Op::Set { id, setter, value } => store(r, *id, *setter, value),
                Op::Return(op) => return respond(r, op),
                Op::If { condition, location, otherwise } => match condition.holds(r, &self.files) {
                    Ok(true) => lost_handler = r.enter_if(*location, lost_handler),
                    Ok(false) => at = *otherwise,
                    Err(fault) => return fault.into(),
                },
                Op::Rewrite(op) => match op.apply(r) {
                    Ok(Applied::No) => {}
                    Ok(Applied::Yes) => {
                        moves = op.last != Last::Break;
                        if op.last != Last::Goes {
                            break;
                        }
                    }
                    Ok(Applied::Redirected) => return Ruled::Status(r.response.status),
                    Err(fault) => return fault.into(),
                },
            }
        }
        if moves { Ruled::Moves } else { Ruled::Stays { lost_handler } }
    }
}

fn store(r: &mut Request, id: VarId, setter: Option<Setter>, value: &Assigned) {
    let value = match value {
        Assigned::Constant(value) => value.clone(),
        Assigned::Template(template) if template.max_capture() > 0 => Bytes::from(encoded(r, template)),
        Assigned::Template(template) => r.render_shared(template),
    };
    match setter {
        Some(set) => set(r, &value),
        None => r.vars.set(id, Value::Set(value)),
    }
}

enum Applied {
    No,
    Yes,
    Redirected,
}

impl RewriteOp {
    fn apply(&self, r: &mut Request) -> std::result::Result<Applied, Fault> {
        let uri = std::mem::take(&mut r.uri);
        let matched = self.regex.exec(r, &uri);
        r.uri = uri;
        let log = r.location.set.get::<RewriteConf>().rewrite_log;
        if !matched? {
            r.vars.captures.clear();
            if log {
                self.log(r, "does not match");
            }
            return Ok(Applied::No);
        }
        if log {
            self.log(r, "matches");
        }
        let mut target = Vec::new();
        let query = render_encoded(r, &self.replacement, self.redirect.is_some(), &mut target);
        if let Some(status) = self.redirect {
            let escaped = std::mem::take(&mut target);
            wire::uri::unescape_redirect(&escaped, &mut target);
            self.append_args(r, query.is_some(), &mut target);
            if log {
                self.log_target(r, "redirect", &target);
            }
            r.response.headers.set_fixed(KnownHeader::Location, target);
            r.response.status = status;
            return Ok(Applied::Redirected);
        }
        let args = query.filter(|at| *at < target.len()).map(|at| target.split_off(at));
        let kept = if self.keep_args { std::mem::take(&mut r.args) } else { Vec::new() };
        if !self.keep_args && !r.args.is_empty() {
            r.uri_source = UriSource::ServerWithArgs;
        }
        r.args.clear();
        if let Some(args) = args {
            r.args.extend_from_slice(&args[1..]);
            if !kept.is_empty() {
                r.args.push(b'&');
            }
        }
        r.args.extend_from_slice(&kept);
        if target.is_empty() {
            return Err(Fault::EmptyUri.log(r));
        }
        r.uri = target;
        r.note_rewritten();
        r.internal = true;
        if self.last == Last::Break {
            r.uri_fit = UriFit::Changed;
        }
        if log {
            let (data, args) = (lossy(&r.uri), lossy(&r.args));
            r.log_at(Level::Notice, format_args!("rewritten data: \"{data}\", args: \"{args}\""));
        }
        Ok(Applied::Yes)
    }

    fn append_args(&self, r: &Request, has_args: bool, target: &mut Vec<u8>) {
        if self.keep_args && !r.args.is_empty() {
            target.push(if has_args { b'&' } else { b'?' });
            target.extend_from_slice(&r.args);
        }
    }

    fn log(&self, r: &Request, what: &str) {
        let (pattern, uri) = (lossy(self.regex.regex.source()), lossy(&r.uri));
        r.log_at(Level::Notice, format_args!("\"{pattern}\" {what} \"{uri}\""));
    }

    fn log_target(&self, r: &Request, what: &str, target: &[u8]) {
        r.log_at(Level::Notice, format_args!("rewritten {what}: \"{}\"", lossy(target)));
    }
}

fn lossy(bytes: &[u8]) -> String {
    buf::text::encode(bytes).into_owned()
}

/// Renders what rules store, compare and redirect to. Captures were decoded with the URI, so they are encoded again: in
/// values (`set`, `if`) everywhere, in a replacement of `rewrite` in its query and in redirects (`always`). `return` has
/// them as they are, as nginx does.
///
/// Returns where the query starts in the rendered text, with its `?`. A `?` in a variable doesn't start it.
fn render_encoded(r: &mut Request, template: &Template, always: bool, out: &mut Vec<u8>) -> Option<usize> {
    expr::vars::settled(template, r, out, |r, out| {
        let mut query = None;
        for part in template.parts() {
            match part {
                Part::Text(text) => {
                    query = query.or_else(|| Some(out.len() + memchr::memchr(b'?', text)?));
                    out.extend_from_slice(text);
                }
                Part::Variable(id) => {
                    r.variable(id, out);
                }
                Part::Capture(group) => {
                    let value = r.vars.captures.get(group).unwrap_or_default();
                    let encoded = always || query.is_some();
                    if encoded && (r.line.quoted_uri || r.line.plus_in_uri) {
                        wire::uri::escape(wire::uri::Escape::Args, value, out);
                    } else {
                        out.extend_from_slice(value);
                    }
                }
            }
        }
        query
    })
}

/// A value with its captures encoded again.
fn encoded(r: &mut Request, template: &Template) -> Vec<u8> {
    let mut out = Vec::new();
    render_encoded(r, template, true, &mut out);
    out
}

impl Condition {
    fn holds(&self, r: &mut Request, files: &Files) -> std::result::Result<bool, Fault> {
        match self {
            Condition::Set(value) => Ok(r.test(value)),
            Condition::Equal { left, right, negative } => {
                let equal = r.with_value(left, |r, left| match right.is_const() {
                    Some(right) => left == right,
                    None => left == encoded(r, right),
                });
                Ok(equal != *negative)
            }
            Condition::Regex { left, regex, negative } => {
                let subject = r.render(left);
                let matched = regex.exec(r, &subject)?;
                if !matched {
                    r.vars.captures.clear();
                }
                if r.location.set.get::<RewriteConf>().rewrite_log {
                    let (pattern, subject) = (lossy(regex.regex.source()), lossy(&subject));
                    let what = if matched { "matches" } else { "does not match" };
                    r.log_at(Level::Notice, format_args!("\"{pattern}\" {what} \"{subject}\""));
                }
                Ok(matched != *negative)
            }
            Condition::File { path, test, negative } => {
                let path = encoded(r, path);
                Ok(test.holds(r, &path, files) != *negative)
            }
        }
    }
}

impl FileTest {
    fn holds(self, r: &mut Request, path: &[u8], files: &Files) -> bool {
        let found = match files.info(r, path) {
            Ok(found) => found,
            Err(error) => {
                if !matches!(error.code(), 0 | errno::NOENT | errno::NOTDIR | errno::NAMETOOLONG) {
                    let (call, path) = (error.call, lossy(path));
                    r.log_at(Level::Crit, format_args!("{call} \"{path}\" failed{}", Errno(&error.error)));
                }
                return false;
            }
        };
        match self {
            FileTest::Plain => found.kind == FileKind::File,
            FileTest::Directory => found.kind == FileKind::Directory,
            FileTest::Exists => true,
            FileTest::Executable => found.executable,
        }
    }
}

/// Runs `return`.
fn respond(r: &mut Request, op: &ReturnOp) -> Ruled {
    let text = match &op.text {
        // A success without a text has an empty body, and so has a status without a page.
        None if matches!(op.status, 200..=300 | 304..=306 | 309..400) => Bytes::default(),
        None => return Ruled::Status(op.status),
        Some(Text::Fixed(text)) => text.clone(),
        Some(Text::Made(template)) => {
            r.response.status = if r.error_status == 0 { op.status } else { shown_status(r.error_status) };
            r.render_shared(template)
        }
    };
    let status = op.status;
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        r.response.headers.set_fixed(KnownHeader::Location, text);
        return Ruled::Status(status);
    }
    send_text(r, status, text);
    Ruled::Responds
}

/// A response of a fixed text, as `return CODE TEXT` makes it.
fn send_text(r: &mut Request, status: u16, text: Bytes) {
    let content_type = r.location.core.types.of(&r.uri).unwrap_or_else(|| r.location.core.default_type.clone());
    let response = &mut r.response;
    response.status = status;
    response.status_line = None;
    // The type that came with a backend's X-Accel-Redirect is kept.
    response.content_type.get_or_insert(content_type);
    if reason(status).is_none() && status == 0 {
        response.status = 200;
    }
    response.content_length = Some(text.len() as u64);
    response.body = if text.is_empty() { Body::Empty } else { Body::Chain(Chain::from(text)) };
}
