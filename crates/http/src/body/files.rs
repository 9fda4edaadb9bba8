//! Files in bodies: passed on as they are, or read.

use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;

use buf::{Buf, Bytes, FileRange};
use rt::ThreadPool;

use crate::config::core::Aio;
use crate::request::Request;

/// How files of a body are passed on.
#[derive(Clone, Copy)]
pub struct FileRule {
    /// Whether they are read; if not, they are passed on as ranges of files.
    pub read: bool,
    /// The most of a file in one portion.
    pub most: u64,
}

impl FileRule {
    /// That of the request's client. A socket sends files by sendfile where the location allows it; a stream of HTTP/2 cuts
    /// files into frames itself, and holds no more of them than goes out at once.
    pub fn of_client(r: &Request) -> FileRule {
        let core = &r.location.core;
        let most = if core.sendfile_max_chunk == 0 { u64::MAX } else { core.sendfile_max_chunk as u64 };
        match r.h2_stream() {
            Some(_) => FileRule { read: !core.sendfile && core.aio != Aio::Off, most: u64::MAX },
            None => FileRule { read: !core.sendfile, most },
        }
    }

    /// That of somebody who looks at the bytes.
    pub(crate) const READER: FileRule = FileRule { read: true, most: u64::MAX };
}

/// The threads that read files for the request's location, if any do.
pub(super) fn pool(r: &Request) -> Option<Rc<ThreadPool>> {
    let Aio::Threads(name) = &r.location.core.aio else { return None };
    r.http.worker.context.get().and_then(|context| (context.pools)(name))
}

/// The most of a file that is read in one go.
pub(super) fn read_size(r: &Request) -> u64 {
    r.location.core.output_buffers.size.clamp(1024, 1 << 20) as u64
}

/// A read that runs in a thread.
pub(super) type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>>>>;

/// Reads a part of a file in a thread.
pub(super) fn read_elsewhere(pool: Rc<ThreadPool>, part: FileRange) -> Reading {
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
