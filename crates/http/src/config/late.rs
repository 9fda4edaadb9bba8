//! Values that are compiled after inheritance, where a server or location has them: as in nginx, what every inner level
//! replaces may name variables that don't exist.

use std::cell::OnceCell;
use std::rc::Rc;

use conf::{Directive, Loader, Result, Span, Word};
use expr::vars::Template;

use crate::request::variables::template_at;
use crate::ssl::values::File;

/// A text with variables.
#[derive(Clone, Debug)]
pub struct Late {
    text: Vec<u8>,
    place: Span,
    compiled: OnceCell<Rc<Template>>,
}

impl Late {
    /// One that a directive's argument says.
    pub fn of(d: &Directive, word: &Word) -> Late {
        Late::text(d, word, &word.text)
    }

    /// What is made of a directive's argument.
    pub fn text(d: &Directive, word: &Word, text: &[u8]) -> Late {
        let place = Span { line: d.end.line, ..word.span };
        Late { text: text.to_vec(), place, compiled: OnceCell::new() }
    }

    /// Compiles it, the first time: all levels that inherit it share what comes of it.
    pub fn compile(&self, loader: &mut Loader<'_>) -> Result<Rc<Template>> {
        if let Some(template) = self.compiled.get() {
            return Ok(template.clone());
        }
        let template = template_at(loader, self.place, &self.text)?;
        Ok(self.compiled.get_or_init(|| template).clone())
    }
}

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
