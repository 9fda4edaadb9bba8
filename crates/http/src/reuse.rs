//! For tests of values whose memory is used again: they must be as new then, or one client's bytes reach another.

/// The members of a value, by name, as texts.
pub(crate) type Members = Vec<(&'static str, String)>;

/// The members of a value. The pattern names them all: a new one that isn't listed doesn't compile.
macro_rules! members {
    ($value:expr, $Type:ident { $($member:ident $(: $text:expr)?),* $(,)? }) => {{
        let $Type { $($member),* } = $value;
        vec![$((stringify!($member), crate::reuse::members!(@ $member $(, $text)?))),*]
    }};
    (@ $member:ident) => { format!("{:?}", $member) };
    (@ $member:ident, $text:expr) => { format!("{:?}", $text) };
}

pub(crate) use members;

/// Checks that the test has changed every member of a `new` value, but the `kept` ones, and that none is still changed
/// after the `reset`.
pub(crate) fn check(new: &Members, used: &Members, reset: &Members, kept: &[&str]) {
    for ((name, new), (_, used)) in new.iter().zip(used) {
        assert_eq!(new == used, kept.contains(name), "the test has changed {name} from {new} to {used}");
    }
    assert_eq!(reset, new);
}
