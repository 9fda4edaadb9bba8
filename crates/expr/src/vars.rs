//! Variables: the registry in which names become ids, and the templates compiled from values that hold variables.

mod registry;
mod template;

pub use registry::{BadName, Duplicate, Entry, Flags, Registry, Unknown, Variables, variable_name};
pub use template::{Part, Template, TemplateError, settled};

/// A variable that a configuration refers to: the index of its [`Entry`] in [`Variables`], and of its memo in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId(pub(crate) u32);

impl VarId {
    /// The id as an index, below [`Variables::len`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a template is rendered for: a request, or a session of a stream.
pub trait Session {
    /// Appends the value of `id` to `out`. False, with nothing appended, if the variable isn't found.
    fn variable(&mut self, id: VarId, out: &mut Vec<u8>) -> bool;

    /// Group `n` (1 to 9) of the last regex that matched, if it took part.
    fn capture(&self, n: usize) -> Option<&[u8]>;

    /// A number that another match changes: whether [`Session::capture`] still speaks of the same one.
    fn captures_serial(&self) -> u32 {
        0
    }
}
