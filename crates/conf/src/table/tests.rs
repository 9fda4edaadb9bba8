use super::*;
use crate::{Env, Frame, Loader, RawSet, Registry, Set, Sets};

const PLACES: Context = Context::HTTP.or(Context::SERVER);

crate::table! {
    /// A configuration for this test.
    pub struct TestConf, raw TestRaw, module "test", level HTTP Location;

    /// A number.
    "number" in PLACES, Args::exactly(1), default "7",
        scalar(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.len())) number: usize = 7;
    /// Names.
    "name" in PLACES, Args::exactly(1), default "",
        list(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) name: Vec<u8>;
    /// A value of the level alone.
    "own" in PLACES, Args::exactly(1), default "",
        here(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) own: Vec<u8>;
    /// The same, if it may be repeated.
    "mark" in PLACES, Args::exactly(1), default "",
        last(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) mark: Vec<u8>;
    /// Both.
    "both" in PLACES, Args::exactly(0), default "",
        also(|raw: &mut TestRaw, _: &mut Loader<'_>, _: &Directive| { raw.number = Some(1); Ok(()) });
    derived { twice: usize = 0; }
    finish(|conf: &mut TestConf, _: Option<&TestConf>, _: &mut Loader<'_>| { conf.twice = conf.number * 2; Ok(()) })
}

/// What the directives of levels, each inside the one before it, resolve to; and the errors.
fn levels(texts: &[&str]) -> (Vec<Set>, Vec<String>) {
    let mut registry = Registry::new();
    registry.add::<TestConf>();
    let mut sets: Vec<Set> = Vec::new();
    let mut errors = Vec::new();
    for text in texts {
        let (sources, directives, _) = crate::parse::parse("x", *text);
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
