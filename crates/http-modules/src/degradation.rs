//! `degradation`: locations that are given up while a worker takes too much memory.
//!
//! What differs from nginx: the memory is what is the worker's own and in use, rather than the size of its heap, which
//! hardly ever falls.

use std::any::Any;
use std::cell::Cell;

use conf::table::duplicate;
use conf::values::{invalid_parameter, one_of};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use engine::worker::sandbox::Needs;
use http::config::core::EVERYWHERE;
use http::module::{HttpModule, LocationContext, shared};
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::response::gzip::Degraded;
use http::server::location::Handlers;

/// The module.
pub struct Degradation;

conf::table! {
    /// How much memory is too much, for all of `http {}`.
    pub struct DegradationConf, raw DegradationRaw, module "ngx_http_degradation_module", level HTTP Main;

    /// Sets how much memory a worker may use before it gives up the locations with `degrade`.
    ///
    /// Form: `degradation sbrk=size`
    ///
    /// - `sbrk=size`: the memory that is the worker's own, without zones and files; 0 is no limit.
    ///
    /// Effect: none for locations without `degrade` or `gzip_disable degradation`. The memory is looked at once a second.
    ///
    /// ```nginx
    /// degradation sbrk=500m;
    /// server {
    ///     location /optional/ {
    ///         degrade 204;
    ///     }
    /// }
    /// ```
    "degradation" in Context::HTTP, Args::exactly(1), default none,
        block(degradation);
}

conf::table! {
    /// What is given up.
    pub struct DegradeConf, raw DegradeRaw, module "ngx_http_degradation_module", level HTTP Location;

    /// Gives up requests while the worker uses more memory than `degradation` says.
    ///
    /// Form: `degrade 204 | 444`
    ///
    /// - `204`: they get this status.
    /// - `444`: their connection is closed.
    ///
    /// Effect: other requests are served as ever.
    ///
    /// ```nginx
    /// degradation sbrk=500m;
    /// server {
    ///     location /optional/ {
    ///         degrade 444;
    ///     }
    /// }
    /// ```
    "degrade" in EVERYWHERE, Args::exactly(1), default none,
        scalar(one_of(&[("204", Some(204)), ("444", Some(444))])) degrade: Option<u16> = None;
}

/// The most memory that the configuration allows a worker.
#[derive(Default)]
struct Most(Option<u64>);

fn degradation(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let word = d.arg(0);
    let Some(size) = word.text.strip_prefix(b"sbrk=") else { return Err(invalid_parameter(word)) };
    let size = buf::parse::parse_size(size);
    let size = size.ok_or_else(|| Error::at(word, format!("invalid sbrk size \"{}\"", word.lossy())))?;
    loader.store.entry::<Needs>().read(STATM);
    match loader.store.entry::<Most>().0.replace(size) {
        Some(_) => Err(duplicate(d)),
        None => Ok(()),
    }
}

impl HttpModule for Degradation {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<DegradationConf>();
        registry.add::<DegradeConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let most = cx.loader.store.entry::<Most>().0.unwrap_or(0);
        if let Some(status) = cx.set.get::<DegradeConf>().degrade
            && most > 0
        {
            out.preaccess.push(shared(Degrader { most_pages: pages(most), status }));
        }
        Ok(())
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        let most_pages = pages(loader.store.entry::<Most>().0.filter(|most| *most > 0)?);
        Some(Box::new(Degraded(Box::new(move || used_pages() > most_pages))))
    }
}

/// So many bytes in pages: asked for before the sandbox begins, in which nobody tells their size.
fn pages(bytes: u64) -> u64 {
    bytes / os::memory::page_size() as u64
}

struct Degrader {
    most_pages: u64,
    status: u16,
}

impl PromptHandler for Degrader {
    fn answer(&self, _: &mut Request) -> Flow<'static> {
        if used_pages() > self.most_pages { Flow::Status(self.status) } else { Flow::Next }
    }
}

/// Where the kernel tells the memory of a process, in pages.
const STATM: &str = "/proc/self/statm";
/// For how long a figure is used.
const VALID_MS: u64 = 1000;

/// The memory that was used when it was last looked at.
#[derive(Clone, Copy)]
struct Seen {
    at_ms: u64,
    pages: u64,
}

thread_local! {
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
}

/// The memory that this worker uses; 0 if the kernel doesn't tell.
fn used_pages() -> u64 {
    let now = rt::now_ms();
    if let Some(seen) = SEEN.get().filter(|seen| now.saturating_sub(seen.at_ms) < VALID_MS) {
        return seen.pages;
    }
    let pages = std::fs::read_to_string(STATM).ok().and_then(|text| own_pages(&text)).unwrap_or(0);
    SEEN.set(Some(Seen { at_ms: now, pages }));
    pages
}

/// What is in memory of a process, without what it shares with files and other processes.
fn own_pages(statm: &str) -> Option<u64> {
    let mut numbers = statm.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
    let (resident, shared) = (numbers.nth(1)??, numbers.next()??);
    resident.checked_sub(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_kernel() {
        assert_eq!(own_pages("3242 1102 880 12 0 290 0\n"), Some(222));
        assert_eq!((own_pages("3242 1102"), own_pages(""), own_pages("a b c")), (None, None, None));
        assert!(std::fs::read_to_string(STATM).ok().and_then(|text| own_pages(&text)).is_some_and(|pages| pages > 0));
    }
}
