//! `ssl_object_cache_inheritable`: a configuration takes over what the one before it has read of TLS, unless it has
//! changed. Applications of all protocols share what is read.

use std::rc::Rc;

use conf::Loader;
use engine::BuildContext;
use engine::cycle::Inheritable;
use engine::cycle::core_conf::SslCacheConf;
use tls::Objects;

/// What the configuration that is being read has read of TLS.
pub(super) fn of(loader: &mut Loader<'_>) -> Rc<Objects> {
    loader.store.entry::<Inheritable>().0.entry::<Rc<Objects>>().clone()
}

/// Builds an application: what has been read of TLS isn't read again. As in nginx, the directive of the running
/// configuration says whether the new one takes over what is unchanged.
pub fn reading_once<'r, T>(
    loader: &mut Loader<'r>,
    cx: &BuildContext<'_>,
    build: impl FnOnce(&mut Loader<'r>) -> T,
) -> T {
    let objects = of(loader);
    let old = cx.old.filter(|old| old.main.get::<SslCacheConf>().ssl_object_cache_inheritable);
    let older = old.and_then(|old| old.inheritable.0.get::<Rc<Objects>>()).cloned();
    tls::reading(&objects, older, || build(loader))
}
