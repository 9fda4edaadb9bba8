//! The configuration language: lexer, includes, directive tables, values, diagnostics.
//!
//! A configuration is read in three steps, each whole before the next begins:
//!
//! 1. [`load`] turns text into a tree of [`Directive`]s, with includes in place.
//! 2. The [`Loader`] walks the tree. Each directive is found in the [`Registry`] by its name and context; its row
//!    checks the arguments and writes the value into the raw configuration of its level.
//! 3. Inheritance: [`Sets::resolve`] turns the raw configuration of a level and the resolved one of its parent into
//!    what the program reads at run time.
//!
//! A module describes its directives with [`table!`]; one row is parsing, checks, inheritance and manual.
#![forbid(unsafe_code)]

pub mod defaults;
pub mod diag;
mod error;
mod files;
mod hints;
mod lexer;
mod loader;
pub mod manual;
pub mod parse;
mod set;
pub mod table;
mod tree;
pub mod values;

pub use error::{Error, Result};
pub use files::{Files, MemoryFiles, glob_matches};
pub use hints::similar_name;
pub use loader::{Env, Frame, Loader, Places, Registry, Store, once};
pub use parse::load;
pub use set::{RawSet, Set, Sets};
pub use table::{Args, Conf, Context, Level, Row, Table};
pub use tree::{COMMAND_LINE, CutRegex, Directive, FileId, Source, Sources, Span, Word};
