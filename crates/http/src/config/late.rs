//! Values that are compiled after inheritance, where a server or location has them: as in nginx, what every inner level
//! replaces may name variables that don't exist.

use std::cell::OnceCell;

use common::vars::Late;
use conf::{Directive, Loader, Result, Span};

use crate::ssl::values::File;

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
    pub fn file(&self, loader: &mut Loader<'_>) -> Result<File> {
        if let Some(file) = self.file.get() {
            return Ok(file.clone());
        }
        let file = File::of(loader, &self.text, &self.value)?;
        Ok(self.file.get_or_init(|| file).clone())
    }
}
