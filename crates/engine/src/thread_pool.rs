//! Pools of threads (`thread_pool`), started in a worker when something first asks for them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::core_conf::{MAX_QUEUE, ThreadPool};
use crate::cycle::Cycle;

thread_local! {
    static POOLS: RefCell<HashMap<String, Rc<rt::ThreadPool>>> = RefCell::default();
}

/// The running pool of that name; the pool `default` needs no directive. `None`: no such pool is described.
pub fn get(cycle: &Cycle, name: &str) -> Option<Rc<rt::ThreadPool>> {
    POOLS.with_borrow_mut(|pools| {
        if let Some(pool) = pools.get(name) {
            return Some(pool.clone());
        }
        let described = described(cycle, name)?;
        let pool = Rc::new(rt::ThreadPool::new(&described.name, described.threads, described.max_queue));
        pools.insert(name.to_string(), pool.clone());
        Some(pool)
    })
}

/// What the configuration says of a pool.
pub fn described(cycle: &Cycle, name: &str) -> Option<ThreadPool> {
    let pools = &cycle.thread_pools().pools;
    let default = || ThreadPool { name: DEFAULT.into(), threads: 32, max_queue: MAX_QUEUE };
    pools.iter().find(|pool| pool.name == name).cloned().or_else(|| (name == DEFAULT).then(default))
}

const DEFAULT: &str = "default";
