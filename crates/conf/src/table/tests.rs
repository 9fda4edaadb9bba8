use super::*;
use crate::{Env, Frame, Loader, RawSet, Registry, Set, Sets, values};

const PLACES: Context = Context::HTTP.or(Context::SERVER);

crate::table! {
    /// A configuration for this test.
    pub(super) struct TestConf, raw TestRaw, module "test", level HTTP Location;

    /// A number.
    "number" in PLACES, Args::exactly(1), default "7",
        scalar(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.len())) number: usize = 7;
    /// Names.
    "name" in PLACES, Args::exactly(1), default none,
        list(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) name: Vec<u8>;
    /// A value of the level alone.
    "own" in PLACES, Args::exactly(1), default none,
        here(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) own: Vec<u8>;
    /// The same, if it may be repeated.
    "mark" in PLACES, Args::exactly(1), default none,
        last(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) mark: Vec<u8>;
    /// Both.
    "both" in PLACES, Args::exactly(0), default none,
        also(|raw: &mut TestRaw, _: &mut Loader<'_>, _: &Directive| { raw.number = Some(1); Ok(()) });
    derived { twice: usize = 0; }
    finish(|conf: &mut TestConf, _: Option<&TestConf>, _: &mut Loader<'_>| { conf.twice = conf.number * 2; Ok(()) })
}

/// What the directives of levels, each inside the one before it, resolve to; and the errors.
fn levels(texts: &[&str]) -> (Vec<Set>, Vec<String>) {
    let mut registry = Registry::new();
    registry.add::<TestConf>();
    registry.add::<MemcachedConf>();
    registry.add::<ProxyConf>();
    let mut sets: Vec<Set> = Vec::new();
    let mut errors = Vec::new();
    for text in texts {
        let (sources, directives, _) = crate::parse::parse("x", text);
        let mut loader = Loader::new(&registry, Env::default(), sources);
        let frame = Frame::default();
        loader.block(&directives, Context::HTTP, frame.clone());
        let raw: &mut RawSet = &mut frame.levels[Level::Location as usize].borrow_mut();
        let set = Sets::resolve(Context::HTTP, Level::Location, raw, sets.last(), &mut loader);
        sets.push(set.expect("no row of this test fails at the end"));
        errors.extend(loader.errors.iter().map(|error| error.message.clone()));
    }
    (sets, errors)
}

#[test]
fn inherits() {
    let (sets, errors) = levels(&["name a;", "number abc;", ""]);
    assert!(errors.is_empty(), "{errors:?}");
    let [outer, inner, same] = [0, 1, 2].map(|level: usize| sets[level].get::<TestConf>());
    assert_eq!((outer.number, outer.name.len(), outer.twice), (7, 1, 14));
    assert_eq!((inner.number, inner.name.len(), inner.twice), (3, 1, 6));
    assert!(std::ptr::eq(inner, same), "a level that sets nothing shares its parent's value");
}

#[test]
fn values_of_one_level_stay_there() {
    let (sets, _) = levels(&["own a; number abc;", "", "", "own b;", "name x;"]);
    let own: Vec<_> = sets.iter().map(|set| set.get::<TestConf>().own.as_deref()).collect();
    assert_eq!(own, [Some(&b"a"[..]), None, None, Some(b"b"), None]);
    assert!(sets.iter().all(|set| set.get::<TestConf>().number == 3), "other rows are inherited");
    let at = |level: usize| std::ptr::from_ref(sets[level].get::<TestConf>());
    assert_eq!(at(1), at(2), "a level shares its parent's value if that has nothing to lose");
    let (sets, errors) = levels(&["own a; own b; mark a; mark b;", ""]);
    assert_eq!(errors, ["\"own\" directive is duplicate"]);
    let mark: Vec<_> = sets.iter().map(|set| set.get::<TestConf>().mark.as_deref()).collect();
    assert_eq!(mark, [Some(&b"b"[..]), None]);
}

crate::table! {
    /// What protocols of this test can be told.
    pub(super) groups BackendConf, raw BackendRaw;

    group connection {
        /// Its own address.
        "bind" in PLACES, Args::exactly(1), default none, scalar(values::string) bind: String = String::new();
        /// SO_KEEPALIVE.
        "socket_keepalive" in PLACES, Args::FLAG, default "off", scalar(values::flag) socket_keepalive: bool = false;
    }
    group timeouts {
        /// A time; see also `{}read_timeout`.
        "connect_timeout" in PLACES, Args::exactly(1), default "60s", scalar(values::msec) connect_timeout: u64 = 60_000;
        /// A time.
        "send_timeout" in PLACES, Args::exactly(1), default "60s", scalar(values::msec) send_timeout: u64 = 60_000;
        /// A time.
        "read_timeout" in PLACES, Args::exactly(1), default "60s", scalar(values::msec) read_timeout: u64 = 60_000;
    }
    group head {
        /// A size.
        "buffer_size" in PLACES, Args::exactly(1), default "4k", scalar(values::size) buffer_size: usize = 4096;
    }
    group retries {
        /// Failures.
        "next_upstream" in PLACES, Args::at_least(1), default none, list(values::string) next_upstream: String;
        /// A number.
        "next_upstream_tries" in PLACES, Args::exactly(1), default "0", scalar(values::number) tries: usize = 0;
        /// A time.
        "next_upstream_timeout" in PLACES, Args::exactly(1), default "0", scalar(values::msec) tries_ms: u64 = 0;
    }
    group files {
        /// A folder.
        "temp_path" in PLACES, Args::exactly(1), default "{}temp", scalar(values::string) temp_path: String = String::new();
    }
    finish(|conf: &mut BackendConf, _: Option<&BackendConf>, prefix: &str, _: &mut Loader<'_>| {
        if conf.temp_path.is_empty() {
            conf.temp_path = format!("{prefix}temp");
        }
        Ok(())
    })
}

crate::table! {
    /// A protocol without files.
    pub(super) struct MemcachedConf, raw MemcachedRaw, module "memcached", level HTTP Location;

    under "memcached_" {
        /// What all protocols have.
        up: BackendConf [connection, timeouts, head, retries];
    }
    /// The server.
    "memcached_pass" in PLACES, Args::exactly(1), default none, here(values::string) pass: String;
    /// A flag of values.
    "memcached_gzip_flag" in PLACES, Args::exactly(1), default "0", scalar(values::number) gzip_flag: u32 = 0;
}

crate::table! {
    /// A protocol with files.
    pub(super) struct ProxyConf, raw ProxyRaw, module "proxy", level HTTP Location;

    under "proxy_" {
        /// What all protocols have.
        up: BackendConf [connection, timeouts, head, retries, files];
    }
}

#[test]
fn a_table_takes_groups_under_its_prefix() {
    let mut names: Vec<String> = MemcachedConf::table().rows.iter().map(|row| row.name.to_string()).collect();
    names.sort();
    let expect = [
        "memcached_bind",
        "memcached_buffer_size",
        "memcached_connect_timeout",
        "memcached_gzip_flag",
        "memcached_next_upstream",
        "memcached_next_upstream_timeout",
        "memcached_next_upstream_tries",
        "memcached_pass",
        "memcached_read_timeout",
        "memcached_send_timeout",
        "memcached_socket_keepalive",
    ];
    assert_eq!(names, expect);
    let row = |table: Table, name: &str| table.rows.into_iter().find(|row| row.name == name).expect("it has this row");
    let default = row(ProxyConf::table(), "proxy_temp_path").default;
    assert!(matches!(default, DefaultValue::Text(text, _) if text == "proxy_temp"));
    let text = row(MemcachedConf::table(), "memcached_connect_timeout").doc;
    assert_eq!(text, " A time; see also `memcached_read_timeout`.\n");
}

#[test]
fn groups_are_inherited_by_prefix() {
    let texts = ["memcached_read_timeout 1s; proxy_read_timeout 2s;", "memcached_gzip_flag 2;", "proxy_temp_path x;"];
    let (sets, errors) = levels(&texts);
    assert!(errors.is_empty(), "{errors:?}");
    let memcached: Vec<_> = sets.iter().map(|set| set.get::<MemcachedConf>()).collect();
    let proxy: Vec<_> = sets.iter().map(|set| set.get::<ProxyConf>()).collect();
    assert_eq!(memcached.iter().map(|conf| conf.up.read_timeout).collect::<Vec<_>>(), [1000; 3]);
    assert_eq!(proxy.iter().map(|conf| conf.up.read_timeout).collect::<Vec<_>>(), [2000; 3]);
    assert_eq!(memcached.iter().map(|conf| conf.gzip_flag).collect::<Vec<_>>(), [0, 2, 2]);
    assert!(Rc::ptr_eq(&memcached[0].up, &memcached[1].up), "a level that sets nothing of the groups shares them");
    assert_eq!(proxy.iter().map(|conf| &*conf.up.temp_path).collect::<Vec<_>>(), ["proxy_temp", "proxy_temp", "x"]);
    let (_, errors) = levels(&["memcached_read_timeout 1s; memcached_read_timeout 1s; memcached_temp_path x;"]);
    let [twice, unknown] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!(twice, "\"memcached_read_timeout\" directive is duplicate");
    assert_eq!(unknown, "unknown directive \"memcached_temp_path\"");
}

/// A protocol of this test.
pub(super) trait Protocol: 'static {
    const BLOCK: Context;

    fn place() -> &'static Place;
}

crate::table! {
    /// A table of several protocols.
    pub(super) struct SharedConf of P: Protocol, raw SharedRaw, at P::place(), block P::BLOCK, level Level::Main;

    /// A number.
    "number" in P::BLOCK, Args::exactly(1), default "1", scalar(values::number) number: usize = 1;
}

#[test]
fn protocols_share_a_table() {
    struct Http;
    struct Stream;
    impl Protocol for Http {
        const BLOCK: Context = Context::HTTP;

        fn place() -> &'static Place {
            static PLACE: Place = Place::new("http");
            &PLACE
        }
    }
    impl Protocol for Stream {
        const BLOCK: Context = Context::STREAM;

        fn place() -> &'static Place {
            static PLACE: Place = Place::new("stream");
            &PLACE
        }
    }
    let mut registry = Registry::new();
    registry.add::<SharedConf<Http>>();
    registry.add::<SharedConf<Stream>>();
    assert_eq!(registry.tables().iter().map(|table| table.module).collect::<Vec<_>>(), ["http", "stream"]);
    let number = |context: Context, text: &str| {
        let (sources, directives, _) = crate::parse::parse("x", text);
        let mut loader = Loader::new(&registry, Env::default(), sources);
        let frame = Frame::default();
        loader.block(&directives, context, frame.clone());
        let raw: &mut RawSet = &mut frame.levels[Level::Main as usize].borrow_mut();
        let set = Sets::resolve(context, Level::Main, raw, None, &mut loader).expect("no row of this test fails");
        match context {
            Context::HTTP => set.get::<SharedConf<Http>>().number,
            _ => set.get::<SharedConf<Stream>>().number,
        }
    };
    assert_eq!((number(Context::HTTP, "number 3;"), number(Context::STREAM, "number 4;")), (3, 4));
    assert_eq!((number(Context::HTTP, ""), number(Context::STREAM, "")), (1, 1));
}
