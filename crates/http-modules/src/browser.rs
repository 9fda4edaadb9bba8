//! `modern_browser`, `ancient_browser`: variables that tell old browsers from new ones by the field `User-Agent`.
//!
//! What is looked for dates from the time of these browsers; see the texts of the directives.

use conf::values::{bytes, replace};
use conf::{Args, Directive, Error, Loader, Registry, Result, Word};
use expr::vars::Flags;
use http::config::core::EVERYWHERE;
use http::module::HttpModule;
use http::request::Request;
use http::request::variables::{Getter, Setup, put};
use memchr::memmem;
use wire::h1::KnownHeader;

/// The module.
pub struct Browser;

conf::table! {
    /// What is modern and what is ancient.
    pub struct BrowserConf, raw BrowserRaw, module "ngx_http_browser_module", level HTTP Location;

    /// Sets from which version on a browser is modern.
    ///
    /// Form: `modern_browser browser version | unlisted`
    ///
    /// - `browser`: `msie`, `gecko`, `opera`, `safari` or `konqueror`.
    /// - `version`: up to four numbers with dots between them.
    /// - `unlisted`: browsers of which no `modern_browser` and no `ancient_browser` speaks are modern, too, and so are
    ///   clients without a `User-Agent`.
    ///
    /// Effect: for a modern browser `$modern_browser` has the value of `modern_browser_value`, for others
    /// `$ancient_browser` that of `ancient_browser_value`. The directive may be repeated; a level that has any doesn't
    /// inherit those of the level around it.
    ///
    /// Danger: browsers of today name old ones in their `User-Agent`; don't let anything depend on it.
    ///
    /// ```nginx
    /// modern_browser msie 9.0;
    /// modern_browser unlisted;
    /// ```
    "modern_browser" in EVERYWHERE, Args::between(1, 2), default none,
        list(modern) modern_browser: Modern;
    /// Sets by which texts in the field `User-Agent` a browser is ancient.
    ///
    /// Form: `ancient_browser text …`
    ///
    /// - `text`: a text that the field contains; case counts. `netscape4` stands for fields that begin with `Mozilla/1` to
    ///   `Mozilla/4`.
    ///
    /// Effect: counts for browsers that no `modern_browser` has found modern. The directive may be repeated; a level that
    /// has any doesn't inherit those of the level around it.
    ///
    /// ```nginx
    /// modern_browser unlisted;
    /// ancient_browser Links Lynx netscape4;
    /// ```
    "ancient_browser" in EVERYWHERE, Args::at_least(1), default none,
        list(ancient) ancient_browser: Ancient;
    /// Sets the value of `$modern_browser` for modern browsers.
    ///
    /// Form: `modern_browser_value text`
    ///
    /// - `text`: the value.
    ///
    /// Effect: none, unless the variable is used.
    ///
    /// ```nginx
    /// modern_browser_value "modern.";
    /// ```
    "modern_browser_value" in EVERYWHERE, Args::exactly(1), default "1",
        set(|raw: &mut BrowserRaw, l: &mut Loader<'_>, d: &Directive| replace(&mut raw.modern_browser_value, bytes, l, d))
            modern_browser_value: Vec<u8> = b"1".to_vec();
    /// Sets the value of `$ancient_browser` for ancient browsers.
    ///
    /// Form: `ancient_browser_value text`
    ///
    /// - `text`: the value.
    ///
    /// Effect: none, unless the variable is used.
    ///
    /// ```nginx
    /// ancient_browser_value "ancient.";
    /// ```
    "ancient_browser_value" in EVERYWHERE, Args::exactly(1), default "1",
        set(|raw: &mut BrowserRaw, l: &mut Loader<'_>, d: &Directive| replace(&mut raw.ancient_browser_value, bytes, l, d))
            ancient_browser_value: Vec<u8> = b"1".to_vec();
}

/// Four numbers of a version.
type Version = [u32; 4];

/// A line of `modern_browser`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modern {
    /// Browsers that no line speaks of.
    Unlisted,
    /// A browser from a version on.
    From(&'static Known, Version),
}

/// How a browser is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name in the configuration.
    name: &'static str,
    /// A text that its `User-Agent` contains.
    mark: &'static str,
    /// What its version follows.
    before_version: &'static str,
    /// How many bytes come before either at least.
    skip: usize,
}

const KNOWN: &[Known] = &[
    Known { name: "msie", mark: "MSIE ", before_version: "MSIE ", skip: 25 },
    Known { name: "gecko", mark: "Gecko", before_version: "rv:", skip: 13 },
    Known { name: OPERA, mark: "Opera", before_version: "Opera", skip: 0 },
    Known { name: "safari", mark: "Safari/", before_version: "Safari/", skip: 25 },
    Known { name: "konqueror", mark: "Konqueror/", before_version: "Konqueror/", skip: 25 },
];

/// Opera calls itself by the names of others, too.
const OPERA: &str = "opera";

fn modern(_: &mut Loader<'_>, d: &Directive) -> Result<Modern> {
    match &d.args[..] {
        [word] if *word == "unlisted" => Ok(Modern::Unlisted),
        [name, version] => {
            let known = KNOWN.iter().find(|known| name.text == known.name.as_bytes());
            let known = known.ok_or_else(|| Error::at(name, format!("unknown browser name \"{}\"", name.lossy())))?;
            Ok(Modern::From(known, configured_version(version)?))
        }
        _ => Err(Error::on(d, "\"modern_browser\" needs a browser and a version, or \"unlisted\"")),
    }
}

fn configured_version(word: &Word) -> Result<Version> {
    let text = &word.text;
    if text.iter().any(|byte| !byte.is_ascii_digit() && *byte != b'.') {
        return Err(Error::at(word, format!("invalid browser version \"{}\"", word.lossy())));
    }
    Ok(version(text))
}

/// The numbers at the beginning of a text; those that are missing are 0.
fn version(text: &[u8]) -> Version {
    let mut version = Version::default();
    let numbers = text.split(|byte| !byte.is_ascii_digit());
    let end = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.').unwrap_or(text.len());
    let count = text[..end].iter().filter(|byte| **byte == b'.').count() + 1;
    for (place, number) in version.iter_mut().zip(numbers.take(count)) {
        let digit = |value: u32, byte: &u8| value.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
        *place = number.iter().fold(0, digit);
    }
    version
}

/// The texts of one directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancient(Vec<Box<[u8]>>);

fn ancient(_: &mut Loader<'_>, d: &Directive) -> Result<Ancient> {
    Ok(Ancient(d.args.iter().map(|word| word.text.as_slice().into()).collect()))
}

impl HttpModule for Browser {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<BrowserConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        let flags = Flags::CHANGEABLE;
        http::variables! { setup, "ngx_http_browser_module";
            /// `1` for a browser that calls itself MSIE, in any version, and isn't Opera. Empty for others.
            "msie", flags, Getter::Plain(|r, out| !is_msie(agent(r).unwrap_or_default()) || put(out, b"1"));
            /// The value of `modern_browser_value` for a modern browser. Empty for others.
            "modern_browser", flags, Getter::Plain(|r, out| {
                let conf = r.location.set.share::<BrowserConf>();
                !is_modern(&conf.modern_browser, &conf.ancient_browser, agent(r)) || put(out, &conf.modern_browser_value)
            });
            /// The value of `ancient_browser_value` for an ancient browser. Empty for others.
            "ancient_browser", flags, Getter::Plain(|r, out| {
                let conf = r.location.set.share::<BrowserConf>();
                is_modern(&conf.modern_browser, &conf.ancient_browser, agent(r)) || put(out, &conf.ancient_browser_value)
            });
        }
    }
}

fn agent(r: &Request) -> Option<&[u8]> {
    r.header(KnownHeader::UserAgent)
}

fn is_msie(agent: &[u8]) -> bool {
    // A version of three characters has to follow.
    memmem::find(agent, b"MSIE ").is_some_and(|at| at + 8 <= agent.len()) && memmem::find(agent, b"Opera").is_none()
}

fn is_modern(modern: &[Modern], ancient: &[Ancient], agent: Option<&[u8]>) -> bool {
    let unlisted = modern.contains(&Modern::Unlisted);
    let Some(agent) = agent else { return unlisted };
    if let Some(is_modern) = of_listed(modern, agent) {
        return is_modern;
    }
    let mut texts = ancient.iter().flat_map(|ancient| &ancient.0);
    let ancient = texts.any(|text| match &**text {
        b"netscape4" => matches!(agent, [b'M', b'o', b'z', b'i', b'l', b'l', b'a', b'/', b'1'..=b'4', ..]),
        text => memmem::find(agent, text).is_some(),
    });
    unlisted && !ancient
}

/// Whether a browser that the list speaks of is modern; `None` for others.
fn of_listed(list: &[Modern], agent: &[u8]) -> Option<bool> {
    let is_opera = memmem::find(agent, b"Opera").is_some();
    let mut listed = None;
    for (known, least) in list.iter().filter_map(|modern| match modern {
        Modern::From(known, least) => Some((*known, least)),
        Modern::Unlisted => None,
    }) {
        // Opera is none of the others, whatever it says.
        let version = found_version(known, agent).filter(|_| is_opera == (known.name == OPERA));
        match version {
            Some(version) if version >= *least => return Some(true),
            Some(_) => listed = Some(false),
            None if is_opera => listed = Some(false),
            None => {}
        }
    }
    listed
}

/// The version of the browser, if it is that one.
fn found_version(known: &Known, agent: &[u8]) -> Option<Version> {
    let agent = agent.get(known.skip..)?;
    memmem::find(agent, known.mark.as_bytes())?;
    let at = memmem::find(agent, known.before_version.as_bytes())? + known.before_version.len();
    let rest = match (known.name, &agent[at..]) {
        (OPERA, [b' ' | b'/', rest @ ..]) => rest,
        (OPERA, _) => return None,
        (_, rest) => rest,
    };
    rest.first().is_some_and(u8::is_ascii_digit).then(|| version(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSIE: &str = "Mozilla/4.0 (compatible; MSIE 5.5; Windows NT 5.1)";
    const OLD_MSIE: &str = "Mozilla/4.0 (compatible; MSIE 5.4; Windows NT 5.1)";
    const AS_MSIE: &str = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; en) Opera 9.0";
    const GECKO: &str = "Mozilla/5.0 (X11; U; rv:1.0.2) Gecko/2003";
    const CHROME: &str = "Mozilla/5.0 (Mac) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/1 Safari/537.36";
    const KONQUEROR: &str = "Mozilla/5.0 (compatible; Konqueror/3.5; Linux) KHTML/3.5.5 (like Gecko)";

    fn modern_of(lines: &str, agent: Option<&str>) -> bool {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, conf::Env::default(), conf::Sources::default());
        let (mut moderns, mut ancients) = (Vec::new(), Vec::new());
        for line in lines.split("; ") {
            let mut words = line.split(' ').map(|text| Word { text: text.into(), ..Word::default() });
            let name = words.next().expect("a name");
            let d = Directive { name, args: words.collect(), ..Directive::default() };
            match d.name == "modern" {
                true => moderns.push(modern(&mut loader, &d).unwrap_or_else(|error| panic!("{error:?}"))),
                false => ancients.push(ancient(&mut loader, &d).expect("any text will do")),
            }
        }
        is_modern(&moderns, &ancients, agent.map(str::as_bytes))
    }

    /// What nginx answers to the same fields.
    #[test]
    fn browsers() {
        let unlisted = "modern unlisted; modern opera 8.0; ancient Links netscape4";
        for (lines, agent, expect) in [
            ("modern msie 5.5", MSIE, true),
            ("modern msie 5.5", OLD_MSIE, false),
            ("modern msie 5; modern msie 7", MSIE, true),
            ("modern msie 5.5", AS_MSIE, false),
            ("modern opera 8.0", AS_MSIE, true),
            ("modern msie 5.5", "MSIE 6.0", false),
            ("modern opera 8.0", "Opera/8.0 (x)", true),
            ("modern opera 8.0", "Opera/7.9", false),
            ("modern opera 8.0", "Opera9", false),
            ("modern opera 8.0", "Opera/7 Opera/9", false),
            ("modern gecko 1.0.2", GECKO, true),
            ("modern gecko 1.0.3", GECKO, false),
            ("modern gecko 1.0", CHROME, false),
            ("modern safari 537", CHROME, true),
            ("modern safari 538", CHROME, false),
            ("modern konqueror 3.0", KONQUEROR, true),
            ("modern konqueror 3.6", KONQUEROR, false),
            (unlisted, MSIE, false),
            (unlisted, AS_MSIE, true),
            (unlisted, GECKO, true),
            (unlisted, "Opera/7.9", false),
            (unlisted, "Links (0.99)", false),
            (unlisted, "xMozilla/4.7", true),
            (unlisted, "links", true),
            ("modern unlisted; modern msie 5", "Opera/9", false),
            ("modern unlisted; modern msie 6", MSIE, false),
            ("modern unlisted", MSIE, true),
            ("ancient X", "zz", false),
        ] {
            assert_eq!(modern_of(lines, Some(agent)), expect, "{lines}: {agent}");
        }
        assert!(modern_of(unlisted, None) && !modern_of("modern msie 1", None));
    }

    #[test]
    fn msie() {
        for (agent, expect) in
            [(MSIE, true), (AS_MSIE, false), ("MSIE 6.0", true), ("MSIE 6.", false), ("msie 6.0", false), ("", false)]
        {
            assert_eq!(is_msie(agent.as_bytes()), expect, "{agent}");
        }
    }

    #[test]
    fn versions() {
        for (text, expect) in [
            ("5.5; Windows", [5, 5, 0, 0]),
            ("5.05", [5, 5, 0, 0]),
            ("1.2.3.4.5", [1, 2, 3, 4]),
            ("7.0b", [7, 0, 0, 0]),
            ("6;1", [6, 0, 0, 0]),
            ("99999999999", [u32::MAX, 0, 0, 0]),
            ("", [0; 4]),
        ] {
            assert_eq!(version(text.as_bytes()), expect, "{text}");
        }
    }
}
