//! Threads for calls that block: reading files, looking names up in the system.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use os::epoll::Wake;

use crate::core;

/// By which other threads tell the loop which tasks to poll.
pub(crate) struct Remote {
    tasks: Mutex<Vec<u32>>,
    /// Jobs that haven't answered.
    awaited: AtomicUsize,
    wake: Wake,
}

impl Remote {
    pub(crate) fn new() -> io::Result<Remote> {
        Ok(Remote { tasks: Mutex::default(), awaited: AtomicUsize::new(0), wake: Wake::new()? })
    }

    /// Whether answers of other threads are to come, or have come and haven't been taken.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Acquire) > 0 || !lock(&self.tasks).is_empty()
    }

    fn push(&self, task: u32) {
        let mut tasks = lock(&self.tasks);
        tasks.push(task);
        if tasks.len() == 1 {
            self.wake.wake();
        }
        drop(tasks);
        self.awaited.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn take(&self) -> Vec<u32> {
        self.wake.clear();
        std::mem::take(&mut lock(&self.tasks))
    }
}

impl AsFd for Remote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Nobody panics while holding these locks, and if so the data is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job, and whether it may wait for all others.
struct Job {
    /// It gets false if there was no room for it in the end.
    run: Box<dyn FnOnce(bool) + Send>,
    haste: Haste,
}

/// Whether a job of a pool is as urgent as others.
#[derive(Clone, Debug, Default)]
pub struct Haste(Arc<AtomicBool>);

impl Haste {
    /// Lets all other jobs go first, unless this one has begun. If the queue is full it makes room for another one.
    pub fn lose(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Shared {
    jobs: Mutex<Jobs>,
    ready: Condvar,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    /// Those of the queue that had no haste when it was their turn.
    later: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Some threads with a queue of jobs: a `thread_pool`.
///
/// They start when there is work, so that a pool may be made before a fork.
pub struct ThreadPool {
    name: String,
    threads: usize,
    max_queue: usize,
    shared: Arc<Shared>,
}

/// A pool's queue has reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the thread pool's queue is full")
    }
}

impl std::error::Error for QueueFull {}

impl Jobs {
    fn len(&self) -> usize {
        self.queue.len() + self.later.len()
    }

    /// The next job: those without haste come last.
    fn next(&mut self) -> Option<Job> {
        while let Some(job) = self.queue.pop_front() {
            if !job.haste.is_lost() {
                return Some(job);
            }
            self.later.push_back(job);
        }
        self.later.pop_front()
    }

    /// Takes out a job without haste, to make room.
    fn displaced(&mut self) -> Option<Job> {
        self.later.pop_front().or_else(|| {
            let at = self.queue.iter().position(|job| job.haste.is_lost())?;
            self.queue.remove(at)
        })
    }
}

impl ThreadPool {
    /// A pool of up to `threads` threads, at least one, and at most `max_queue` waiting jobs.
    pub fn new(name: &str, threads: usize, max_queue: usize) -> ThreadPool {
        let shared = Arc::new(Shared { jobs: Mutex::default(), ready: Condvar::new() });
        ThreadPool { name: name.to_string(), threads: threads.max(1), max_queue, shared }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on one of the threads. If it panics, so does this. If this future is dropped, `f` runs all the same.
    pub async fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T, QueueFull> {
        self.run_if(|| true, Haste::default(), f).await
    }

    /// As [`ThreadPool::run`]; but if this future is dropped before a thread has begun with `f`, none does, and `f` lets
    /// others go first once it has lost its haste.
    pub async fn run_while_wanted<T: Send + 'static>(
        &self,
        haste: Haste,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueueFull> {
        let wanted = Arc::new(());
        let mark = Arc::downgrade(&wanted);
        let answer = self.run_if(move || mark.strong_count() > 0, haste, f).await;
        drop(wanted);
        answer
    }

    async fn run_if<T: Send + 'static>(
        &self,
        is_wanted: impl FnOnce() -> bool + Send + 'static,
        haste: Haste,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueueFull> {
        let core = core::current();
        let answer = Arc::new(Mutex::new(None));
        let (to, remote, task) = (answer.clone(), core.remote(), core.tasks.running());
        remote.awaited.fetch_add(1, Ordering::Relaxed);
        let run = move |admitted: bool| {
            if !admitted {
                *lock(&to) = Some(Err(QueueFull));
            } else if is_wanted() {
                *lock(&to) = Some(Ok(catch_unwind(AssertUnwindSafe(f))));
            }
            remote.push(task);
        };
        if self.submit(Job { run: Box::new(run), haste }).is_err() {
            core.remote().awaited.fetch_sub(1, Ordering::Relaxed);
            return Err(QueueFull);
        }
        // The task that waits is the one that asked: a future doesn't move between tasks once it has been polled.
        let answer = poll_fn(|_| lock(&answer).take().map_or(Poll::Pending, Poll::Ready)).await;
        Ok(answer?.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    fn submit(&self, job: Job) -> Result<(), QueueFull> {
        let mut jobs = lock(&self.shared.jobs);
        let displaced = if jobs.len() >= self.max_queue { Some(jobs.displaced().ok_or(QueueFull)?) } else { None };
        jobs.queue.push_back(job);
        if jobs.idle < jobs.len() && jobs.threads < self.threads && self.start() {
            jobs.threads += 1;
        }
        if jobs.threads == 0 {
            // The system gives no thread at all: better here than never.
            let job = jobs.queue.pop_back();
            drop(jobs);
            job.into_iter().for_each(|job| (job.run)(true));
            return Ok(());
        }
        self.shared.ready.notify_one();
        drop(jobs);
        displaced.into_iter().for_each(|job| (job.run)(false));
        Ok(())
    }

    fn start(&self) -> bool {
        let shared = self.shared.clone();
        std::thread::Builder::new().name(self.name.clone()).spawn(move || shared.work()).is_ok()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        lock(&self.shared.jobs).closed = true;
        self.shared.ready.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(job) = jobs.next() {
                drop(jobs);
                (job.run)(true);
                jobs = lock(&self.jobs);
            } else if jobs.closed {
                return;
            } else {
                jobs.idle += 1;
                jobs = self.ready.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                jobs.idle -= 1;
            }
        }
    }
}
