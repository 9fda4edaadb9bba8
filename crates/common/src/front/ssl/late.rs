//! Names of certificates and keys that may hold variables: they are compiled after inheritance.

use std::cell::OnceCell;

use conf::{Directive, Loader, Result, Span};

use super::values::File;
use crate::Proto;
use crate::vars::Late;

/// A certificate or key as a directive names it.
#[derive(Clone, Debug)]
pub struct LateFile {
    /// The name as it is written.
    pub text: String,
    /// Where it stands.
    pub place: Span,
    value: Late,
    file: OnceCell<File>,
}

impl LateFile {
    /// The one that the directive's argument names.
    pub fn of(d: &Directive) -> Result<LateFile> {
        let word = d.arg(0);
        let text = conf::values::text(word)?.to_owned();
        let value = Late::of(d, word);
        Ok(LateFile { text, place: value.place, value, file: OnceCell::new() })
    }

    /// The file, or the template of its name.
    pub fn file<P: Proto>(&self, loader: &mut Loader<'_>) -> Result<File> {
        if let Some(file) = self.file.get() {
            return Ok(file.clone());
        }
        let file = File::of::<P>(loader, &self.text, &self.value)?;
        Ok(self.file.get_or_init(|| file).clone())
    }
}
