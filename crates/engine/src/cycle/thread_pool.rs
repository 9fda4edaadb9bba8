//! Pools of threads (`thread_pool`), started in a worker when something first asks for them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use conf::{Error, Loader, Span};

use crate::cycle::core_conf::{MAX_QUEUE, ThreadPool, ThreadPoolConf};

thread_local! {
    static POOLS: RefCell<HashMap<String, Rc<rt::ThreadPool>>> = RefCell::default();
}

/// The running pool of that name; the pool `default` needs no directive. `None`: no such pool is described.
pub fn get(conf: &ThreadPoolConf, name: &str) -> Option<Rc<rt::ThreadPool>> {
    POOLS.with_borrow_mut(|pools| {
        if let Some(pool) = pools.get(name) {
            return Some(pool.clone());
        }
        let described = described(conf, name)?;
        let pool = Rc::new(rt::ThreadPool::new(&described.name, described.threads, described.max_queue));
        pools.insert(name.to_string(), pool.clone());
        Some(pool)
    })
}

/// Pools that directives name: which of them there are shows when all is read.
#[derive(Default)]
struct Referred(Vec<(String, Span)>);

/// Notes that a directive names a pool.
pub fn refer(loader: &mut Loader<'_>, name: &str, place: Span) {
    loader.store.entry::<Referred>().0.push((name.to_owned(), place));
}

/// Whether all pools that are named are described.
pub(crate) fn check(loader: &mut Loader<'_>, pools: &ThreadPoolConf) -> conf::Result<()> {
    let is_there = |name: &str| name == DEFAULT || pools.pools.iter().any(|pool| pool.name == name);
    match loader.store.entry::<Referred>().0.iter().find(|(name, _)| !is_there(name)) {
        Some((name, place)) => {
            let error = Error::place(*place, format!("unknown thread pool \"{name}\""));
            Err(error.hint(format!("no \"thread_pool {name} threads=...;\" stands outside of all blocks")))
        }
        None => Ok(()),
    }
}

/// What the configuration says of a pool.
pub fn described(conf: &ThreadPoolConf, name: &str) -> Option<ThreadPool> {
    let pools = &conf.pools;
    let default = || ThreadPool { name: DEFAULT.into(), threads: 32, max_queue: MAX_QUEUE };
    pools.iter().find(|pool| pool.name == name).cloned().or_else(|| (name == DEFAULT).then(default))
}

const DEFAULT: &str = "default";
