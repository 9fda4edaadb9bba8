//! What limits have in common: a zone whose entries are counted by a key.

use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Word};
use engine::cycle::zones::{self, Owner, SharedZone};
use engine::log::Level;
use expr::vars::Template;
use smallvec::SmallVec;

use crate::{Proto, Session, vars};

/// The key of a zone: what `limit_conn_zone` or `limit_req_zone` says first.
pub struct Key {
    template: Rc<Template>,
    text: Box<str>,
}

/// The key of a session. Addresses, as most keys are, need no memory of their own.
pub type KeyValue = SmallVec<[u8; 16]>;

/// Who declares and refers to zones of one kind.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The owner of the zones.
    pub owner: Owner,
    /// The directive, as the message about a zone that has a key already names it.
    pub bound: &'static str,
    /// The same in the message about a key that differs from the running configuration's.
    pub changed: &'static str,
    /// The longest key.
    pub longest_key: usize,
}

/// Levels of messages about what was limited: the values of `limit_conn_log_level` and `limit_req_log_level`.
pub const LOG_LEVELS: &[(&str, Level)] =
    &[("info", Level::Info), ("notice", Level::Notice), ("warn", Level::Warn), ("error", Level::Error)];

/// The value of a parameter `name=value`, if the word is that.
pub fn parameter<'w>(word: &'w Word, name: &str) -> Option<&'w [u8]> {
    word.text.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Declares the zone of a `…_zone KEY zone=NAME:SIZE …` and gives it its key. On a reload a key that has changed refuses
/// the configuration: what was counted by the old one would be counted on by the new.
pub fn declare<P: Proto>(
    loader: &mut Loader<'_>,
    d: &Directive,
    name: &[u8],
    size: usize,
    kind: Kind,
) -> Result<Rc<SharedZone>> {
    let template = vars::template_of::<P>(loader, d, &d.arg(0).text)?;
    let zone = zones::declare(loader, d.arg(0), name, size, kind.owner)?;
    if let Some(key) = zone.data::<Key>() {
        let message = format!("{} \"{}\" is already bound to key \"{}\"", kind.bound, zone.name(), key.text);
        return Err(Error::on(d, message));
    }
    zone.set_data(Rc::new(Key { template, text: d.arg(0).lossy().into() }));
    zone.set_meaning(&d.arg(0).lossy());
    zone.on_start(move |zone, origin| {
        let old = origin.declaration().and_then(|old| old.data::<Key>());
        let (Some(new), Some(old)) = (zone.data::<Key>(), old) else { return Ok(()) };
        if new.text == old.text {
            return Ok(());
        }
        Err(format!(
            "{} \"{}\" uses the \"{}\" key while previously it used the \"{}\" key",
            kind.changed,
            zone.name(),
            new.text,
            old.text
        ))
    });
    Ok(zone)
}

/// The key of a session in a zone; `None` if it isn't to be counted: the key is empty, or too long, which is logged.
pub fn key<P: Proto>(zone: &SharedZone, session: &mut P::Session, kind: Kind) -> Option<KeyValue> {
    let (key, value) = render::<P>(zone, session)?;
    if value.len() > kind.longest_key {
        let shown = buf::text::encode(&value);
        let (text, longest) = (&key.text, kind.longest_key);
        let message = format_args!("the value of the \"{text}\" key is more than {longest} bytes: \"{shown}\"");
        session.log_at(Level::Error, message);
        return None;
    }
    (!value.is_empty()).then_some(value)
}

/// The same of a session whose key was looked at before, in another worker: nothing is logged.
pub fn key_again<P: Proto>(zone: &SharedZone, session: &mut P::Session, kind: Kind) -> Option<KeyValue> {
    let (_, value) = render::<P>(zone, session)?;
    (1..=kind.longest_key).contains(&value.len()).then_some(value)
}

fn render<P: Proto>(zone: &SharedZone, session: &mut P::Session) -> Option<(Rc<Key>, KeyValue)> {
    let key = zone.data::<Key>()?;
    let value = vars::with_value(session, &key.template, |_, value| KeyValue::from_slice(value));
    Some((key, value))
}
