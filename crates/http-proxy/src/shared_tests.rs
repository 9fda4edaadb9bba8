//! A body that is produced once: readers that leave, come later, or are slow.

use std::collections::VecDeque;

use super::*;
use http::config::core::TempPath;

/// What a source yields, in order; it waits where its script is at its end.
type Script = Rc<RefCell<VecDeque<Result<Option<&'static [u8]>, Broken>>>>;

struct Source {
    script: Script,
    ready: Rc<rt::Event>,
    dropped: Rc<Cell<bool>>,
}

impl BodyStream for Source {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Broken>> {
        match self.script.borrow_mut().pop_front() {
            Some(Ok(Some(bytes))) => {
                let chain = Chain::from(buf::Bytes::from_static(bytes));
                Poll::Ready(Ok(Some(Part { chain, flush: false })))
            }
            Some(Ok(None)) => Poll::Ready(Ok(None)),
            Some(Err(Broken)) => Poll::Ready(Err(Broken)),
            None => {
                let _ = self.ready.poll_since(cx, self.ready.count());
                Poll::Pending
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.dropped.set(true);
    }
}

struct Kept(Rc<RefCell<Option<Vec<u8>>>>);

impl Keeper for Kept {
    fn keep(self: Box<Self>, file: TempFile, _: u64) -> Result<(), WriteError> {
        self.0.replace(Some(std::fs::read(file.path()).unwrap()));
        Ok(())
    }
}

/// A body in production, and what can be seen and done from outside.
struct Body {
    script: Script,
    ready: Rc<rt::Event>,
    dropped: Rc<Cell<bool>>,
    kept: Rc<RefCell<Option<Vec<u8>>>>,
    folder: tempfile::TempDir,
}

impl Body {
    fn start(wanted: bool, ahead: u64) -> (Body, Reader) {
        let folder = tempfile::TempDir::with_prefix("tidegate-shared-").expect("a folder");
        let place = TempPath { path: Rc::new(folder.path().to_path_buf()), levels: Rc::new([]) };
        let file = TempFile::create(&place, false, &Cell::new(0)).ok().expect("the folder is there");
        let (script, ready, dropped) = (Script::default(), Rc::<rt::Event>::default(), Rc::<Cell<bool>>::default());
        let kept = Rc::<RefCell<Option<Vec<u8>>>>::default();
        let source = Source { script: script.clone(), ready: ready.clone(), dropped: dropped.clone() };
        let keeper = wanted.then(|| Box::new(Kept(kept.clone())) as Box<dyn Keeper>);
        let log = RequestLog { log: Log::stderr(Level::Emerg), number: 0, details: None };
        let (reader, task) = begin(Box::new(source), file, Purpose { keeper, ahead, base: 0 }, log);
        rt::spawn(task);
        (Body { script, ready, dropped, kept, folder }, reader)
    }

    /// Whether its file, the only one in the folder, has gone.
    fn has_no_file(&self) -> bool {
        std::fs::read_dir(self.folder.path()).unwrap().next().is_none()
    }

    /// More comes, and everything that follows from it happens.
    async fn yields(&self, more: impl IntoIterator<Item = Result<Option<&'static [u8]>, Broken>>) {
        self.script.borrow_mut().extend(more);
        self.ready.notify();
        settle().await;
    }
}

async fn settle() {
    for _ in 0..20 {
        rt::yield_now().await;
    }
}

/// All that a reader gets up to the end.
async fn all(reader: &mut Reader) -> (Vec<u8>, Result<(), Broken>) {
    let mut bytes = Vec::new();
    loop {
        match poll_fn(|cx| reader.poll_part(cx)).await {
            Ok(Some(part)) => bytes.extend(text(&part.chain)),
            Ok(None) => return (bytes, Ok(())),
            Err(Broken) => return (bytes, Err(Broken)),
        }
    }
}

fn text(chain: &Chain) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in chain.pieces() {
        let Piece::File(range) = piece else { panic!("it comes from the file") };
        let at = bytes.len();
        bytes.resize(at + range.len as usize, 0);
        range.file.read_exact_at(&mut bytes[at..], range.offset).unwrap();
    }
    bytes
}

fn run(test: impl Future<Output = ()> + 'static) {
    rt::Runtime::new(rt::Options::default()).unwrap().block_on(test);
}

#[test]
fn what_is_wanted_ends_whole_without_readers() {
    run(async {
        let (body, reader) = Body::start(true, 1);
        body.yields([Ok(Some(&b"one "[..]))]).await;
        drop(reader);
        body.yields([Ok(Some(&b"two"[..]))]).await;
        assert_eq!(*body.kept.borrow(), None);
        body.yields([Ok(None)]).await;
        assert_eq!(body.kept.take(), Some(b"one two".to_vec()));
        assert!(body.dropped.get() && body.has_no_file());
    });
}

#[test]
fn readers_come_and_go() {
    run(async {
        let (body, mut first) = Body::start(true, 2);
        body.yields([Ok(Some(&b"one "[..]))]).await;
        let mut second = first.another();
        drop(first.another());
        body.yields([Ok(Some(&b"two "[..])), Ok(Some(&b"three"[..])), Ok(None)]).await;
        let mut third = second.another();
        for reader in [&mut first, &mut second, &mut third] {
            assert_eq!(all(reader).await, (b"one two three".to_vec(), Ok(())));
        }
    });
}

#[test]
fn what_breaks_reaches_all_and_is_not_kept() {
    run(async {
        let (body, mut first) = Body::start(true, 3);
        let mut second = first.another();
        body.yields([Ok(Some(&b"one"[..])), Err(Broken)]).await;
        for reader in [&mut first, &mut second] {
            assert_eq!(all(reader).await, (b"one".to_vec(), Err(Broken)));
        }
        assert!(body.kept.borrow().is_none() && body.has_no_file());
    });
}

#[test]
fn what_nobody_wants_waits_for_the_slowest_and_ends_with_the_last() {
    run(async {
        let (body, mut fast) = Body::start(false, 4);
        let mut slow = fast.another();
        body.yields([Ok(Some(&b"aaa"[..])), Ok(Some(&b"bbb"[..])), Ok(Some(&b"ccc"[..]))]).await;
        assert_eq!(body.script.borrow().len(), 1, "six bytes are more than four ahead");
        let next = async |reader: &mut Reader| poll_fn(|cx| reader.poll_part(cx)).await.unwrap().unwrap().chain.len();
        assert_eq!(next(&mut fast).await, 6);
        settle().await;
        assert_eq!(body.script.borrow().len(), 1, "the slow one has taken nothing");
        assert_eq!(next(&mut slow).await, 6);
        settle().await;
        assert_eq!(body.script.borrow().len(), 0);
        drop(slow);
        settle().await;
        assert!(!body.dropped.get());
        drop(fast);
        settle().await;
        assert!(body.dropped.get() && body.has_no_file());
    });
}
