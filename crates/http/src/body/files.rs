//! Files in bodies: passed on as they are, or read.

use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;

use buf::{Buf, Bytes, FileRange};
use rt::ThreadPool;

use crate::config::core::{Aio, CoreLocation};
use crate::request::Request;

/// How files of a body are passed on.
pub struct FileRule {
    /// Whether they are read; if not, they are passed on as ranges of files.
    pub read: bool,
    /// The most of a file in one portion.
    pub most: u64,
    /// The threads that read, if any do.
    pub pool: Option<Rc<ThreadPool>>,
}

impl FileRule {
    /// The rule of a client's socket, which sends files by sendfile if the location allows it.
    pub fn of_socket(r: &Request) -> FileRule {
        let core = &r.location.core;
        let most = if core.sendfile_max_chunk == 0 { u64::MAX } else { core.sendfile_max_chunk as u64 };
        FileRule::new(r, !core.sendfile, most)
    }

    /// The rule of a stream of HTTP/2, which cuts files into frames itself, and holds no more of them than it sends at
    /// once.
    pub fn of_stream(r: &Request) -> FileRule {
        let core = &r.location.core;
        FileRule::new(r, !core.sendfile && core.aio != Aio::Off, u64::MAX)
    }

    /// The rule of a receiver that needs the bytes.
    pub fn of_reader(r: &Request) -> FileRule {
        FileRule::new(r, true, u64::MAX)
    }

    fn new(r: &Request, read: bool, most: u64) -> FileRule {
        FileRule { read, most, pool: pool(r, &r.location.core) }
    }
}

fn pool(r: &Request, core: &CoreLocation) -> Option<Rc<ThreadPool>> {
    let Aio::Threads(name) = &core.aio else { return None };
    r.http.worker.context.get().and_then(|context| (context.pools)(name))
}

/// The most of a file that is read in one go.
pub(super) fn read_size(r: &Request) -> u64 {
    r.location.core.output_buffers.size.clamp(1024, 1 << 20) as u64
}

/// A read that runs in a thread.
pub(super) type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>>>>;

/// Reads a part of a file in a thread.
pub(super) fn read_elsewhere(pool: &Rc<ThreadPool>, part: FileRange) -> Reading {
    let pool = pool.clone();
    Box::pin(async move {
        let (file, offset, len) = (part.file.try_clone()?, part.offset, part.len as usize);
        let read = pool.run(move || {
            let mut memory = vec![0; len];
            file.read_exact_at(&mut memory, offset).map(|()| memory)
        });
        match read.await {
            Ok(read) => read.map(Bytes::from),
            Err(_) => read_here(&part),
        }
    })
}

/// Reads a part of a file.
pub(super) fn read_here(part: &FileRange) -> io::Result<Bytes> {
    let len = part.len as usize;
    let mut buf = Buf::with_capacity(len);
    part.file.read_exact_at(&mut buf.room_mut()[..len], part.offset)?;
    buf.filled(len);
    Ok(buf.freeze())
}
