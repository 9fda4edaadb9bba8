//! `set`: values of variables, before access is decided.

use std::rc::Rc;

use common::modules::{Check, Verdict};
use common::vars::{self, Setter, Value, storable, template_of};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use expr::vars::{Flags, Template, VarId};

use crate::module::{Handlers, ServerContext, StreamModule};
use crate::proto::StreamProto;
use crate::session::StreamSession;

/// The module.
pub struct Set;

conf::table! {
    /// What is set.
    pub struct SetConf, raw SetRaw, module "ngx_stream_set_module", level STREAM Server;

    /// Sets a variable.
    ///
    /// Form: `set $variable value`
    ///
    /// - `$variable`: a variable, which the directive defines if there is none of the name.
    /// - `value`: a text with variables.
    ///
    /// Effect: the variables of a server are set in the order of the file, before limits and rules of access are looked at
    /// and before the TLS handshake.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8080;
    ///     set $backend 127.0.0.1:8081;
    ///     proxy_pass $backend;
    /// }
    /// ```
    "set" in Context::STREAM_SERVER, Args::exactly(2), default none,
        list(assignment) set: Assignment;
}

/// One `set`.
#[derive(Clone)]
struct Assignment {
    id: VarId,
    setter: Option<Setter<StreamProto>>,
    value: Rc<Template>,
}

fn assignment(loader: &mut Loader<'_>, d: &Directive) -> Result<Assignment> {
    let (id, setter) = storable::<StreamProto>(loader, d.arg(0), Flags::WEAK)?;
    Ok(Assignment { id, setter, value: template_of::<StreamProto>(loader, d, &d.arg(1).text)? })
}

impl StreamModule for Set {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SetConf>();
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let all = &cx.set.get::<SetConf>().set;
        if !all.is_empty() {
            out.preaccess.push(Box::new(Assignments(all.clone())));
        }
        Ok(())
    }
}

struct Assignments(Rc<[Assignment]>);

impl Check<StreamProto> for Assignments {
    fn check(&self, s: &mut StreamSession) -> Verdict {
        for Assignment { id, setter, value } in self.0.iter() {
            let value = vars::render_shared(s, value);
            match setter {
                Some(set) => set(s, &value),
                None => s.base.store.set(*id, Value::Set(value)),
            }
        }
        Verdict::Next
    }
}
