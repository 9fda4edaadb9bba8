//! Files and folders: copied, moved and removed, in a thread.
//!
//! Links are never followed: in a folder that is copied a link stays a link, and of one that is removed its target stays.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use http::body::temp::beside;
use os::file::{Open, openat};

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// Its name and what it was about.
    pub(super) what: String,
    /// Its error.
    pub(super) error: io::Error,
}

/// Whether it was done.
pub(super) type Done = Result<(), Failed>;

/// The call that failed, about a path.
pub(super) fn failed<'p>(call: &'static str, path: &'p Path) -> impl Fn(io::Error) -> Failed + 'p {
    move |error| Failed { what: format!("{call} \"{}\"", buf::text::path(path)), error }
}

/// Removes a file, a link, or a folder with all that is in it.
pub(super) fn remove(path: &Path, is_folder: bool) -> Done {
    let (call, removed) = match is_folder {
        true => ("rmdir()", fs::remove_dir_all(path)),
        false => ("unlink()", fs::remove_file(path)),
    };
    removed.map_err(failed(call, path))
}

/// Moves a file or a folder to a place where none is, or a file to that of another one. Over the border of a file system
/// it is copied and then removed.
pub(super) fn rename(from: &Path, to: &Path, meta: &Metadata) -> Done {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy(from, to, meta)?;
            remove(from, meta.is_dir())
        }
        done => done.map_err(failed("rename()", to)),
    }
}

/// Copies a file or a folder, with permissions and times. It appears whole; a file takes the place of another one.
pub(super) fn copy(from: &Path, to: &Path, meta: &Metadata) -> Done {
    let beside = beside(to);
    let copied = match meta.is_dir() {
        true => copy_folder(from, &beside),
        false => copy_one(from, &beside, meta),
    };
    let copied = copied.and_then(|()| fs::rename(&beside, to).map_err(failed("rename()", to)));
    if copied.is_err() {
        let _ = remove(&beside, meta.is_dir());
    }
    copied
}

/// Replaces what is in the way of a folder: that goes once the folder is there whole, and stays if that fails.
pub(super) fn replace_by_folder(from: &Path, to: &Path, meta: &Metadata, known: &Metadata, copies: bool) -> Done {
    if !copies {
        match swap(from, to, known) {
            // Folders may lie apart on one device too: on an overlay, or below another mount of it.
            Err(failed) if failed.error.kind() == io::ErrorKind::CrossesDevices => {}
            done => return done,
        }
    }
    let whole = beside(to);
    copy(from, &whole, meta)?;
    let done = swap(&whole, to, known);
    if done.is_err() {
        let _ = remove(&whole, true);
    }
    done?;
    if copies { Ok(()) } else { remove(from, true) }
}

fn swap(whole: &Path, to: &Path, known: &Metadata) -> Done {
    let aside = beside(to);
    rename(to, &aside, known)?;
    if let Err(error) = fs::rename(whole, to) {
        rename(&aside, to, known)?;
        return Err(failed("rename()", to)(error));
    }
    remove(&aside, known.is_dir())
}

fn copy_folder(from: &Path, to: &Path) -> Done {
    let mut waiting = vec![(from.to_path_buf(), to.to_path_buf())];
    let mut folders = Vec::new();
    // The copy itself, in case that it is below what is copied, by a way that no name shows.
    let mut own = None;
    while let Some((from, to)) = waiting.pop() {
        let meta = fs::symlink_metadata(&from).map_err(failed("lstat()", &from))?;
        if !meta.is_dir() {
            copy_one(&from, &to, &meta)?;
            continue;
        }
        if own == Some((meta.dev(), meta.ino())) {
            continue;
        }
        DirBuilder::new().mode(0o700).create(&to).map_err(failed("mkdir()", &to))?;
        if own.is_none() {
            let made = fs::symlink_metadata(&to).map_err(failed("lstat()", &to))?;
            own = Some((made.dev(), made.ino()));
        }
        for entry in fs::read_dir(&from).map_err(failed("opendir()", &from))? {
            let entry = entry.map_err(failed("readdir()", &from))?;
            waiting.push((entry.path(), to.join(entry.file_name())));
        }
        folders.push((to, meta));
    }
    // What is in a folder changes its time, and takes the right to write: so these come last.
    for (to, meta) in folders.iter().rev() {
        let folder = File::open(to).map_err(failed("open()", to))?;
        describe(&folder, to, meta)?;
    }
    Ok(())
}

/// Copies what is no folder to a name that nothing has. Pipes, sockets and devices are left out.
fn copy_one(from: &Path, to: &Path, meta: &Metadata) -> Done {
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(failed("readlink()", from))?;
        return symlink(target, to).map_err(failed("symlink()", to));
    }
    if !meta.is_file() {
        return Ok(());
    }
    let how = Open { no_follow: true, nonblocking: true, ..Open::default() };
    let source = openat(None, from.as_os_str().as_encoded_bytes(), how).map_err(failed("open()", from))?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut made = made.map_err(failed("open()", to))?;
    io::copy(&mut File::from(source), &mut made).map_err(failed("write()", to))?;
    describe(&made, to, meta)
}

/// Gives a copy the permissions and the time of what it is a copy of. In a sandbox it keeps its own.
fn describe(copy: &File, path: &Path, meta: &Metadata) -> Done {
    let allowed = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    };
    let mode = copy.set_permissions(Permissions::from_mode(meta.mode() & 0o777));
    allowed(mode).map_err(failed("chmod()", path))?;
    let time = meta.modified().and_then(|time| copy.set_modified(time));
    allowed(time).map_err(failed("utimes()", path))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::TempDir::with_prefix("tidegate-tree-").expect("create"))
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    fn old() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("write");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        File::open(path).and_then(|file| file.set_modified(old())).expect("ours");
    }

    fn meta(path: &Path) -> Metadata {
        fs::symlink_metadata(path).expect("it is there")
    }

    #[test]
    fn a_tree_is_copied_with_its_links_permissions_and_times() {
        let folder = Folder::new();
        let from = folder.at("from");
        fs::create_dir_all(from.join("sub/empty")).expect("create");
        write(&folder.at("outside"), "secret", 0o600);
        write(&from.join("sub/file"), "text", 0o640);
        symlink("../outside", from.join("link")).expect("link");
        symlink("nowhere", from.join("broken")).expect("link");
        fs::set_permissions(from.join("sub"), Permissions::from_mode(0o550)).expect("ours");
        File::open(&from).and_then(|file| file.set_modified(old())).expect("ours");
        let to = folder.at("to");
        copy(&from, &to, &meta(&from)).expect("it is allowed");
        fs::set_permissions(from.join("sub"), Permissions::from_mode(0o755)).expect("ours");
        assert_eq!(fs::read_to_string(to.join("sub/file")).expect("copied"), "text");
        assert_eq!(fs::read_link(to.join("link")).expect("a link"), Path::new("../outside"));
        assert!(meta(&to.join("broken")).is_symlink() && meta(&to.join("sub/empty")).is_dir());
        assert_eq!(meta(&to.join("sub/file")).mode() & 0o777, 0o640);
        assert_eq!(meta(&to.join("sub")).mode() & 0o777, 0o550);
        assert_eq!(
            [meta(&to), meta(&to.join("sub/file"))].map(|meta| meta.modified().expect("a time")),
            [old(), old()]
        );
        fs::set_permissions(to.join("sub"), Permissions::from_mode(0o755)).expect("ours");
    }

    #[test]
    fn a_copy_below_what_is_copied_ends() {
        let folder = Folder::new();
        let from = folder.at("from");
        fs::create_dir_all(from.join("sub")).expect("create");
        symlink(&from, folder.at("way")).expect("link");
        copy(&from, &folder.at("way/in"), &meta(&from)).expect("it ends");
        assert!(meta(&from.join("in/sub")).is_dir() && !from.join("in/in").exists());
    }

    #[test]
    fn a_folder_takes_the_place_of_another() {
        let folder = Folder::new();
        let (from, to) = (folder.at("from"), folder.at(&"t".repeat(255)));
        for copies in [true, false] {
            fs::create_dir_all(from.join("sub")).expect("create");
            fs::create_dir_all(to.join("old")).expect("create");
            replace_by_folder(&from, &to, &meta(&from), &meta(&to), copies).expect("it is allowed");
            assert!(to.join("sub").exists() && !to.join("old").exists());
            assert_eq!(from.exists(), copies);
            assert_eq!(
                fs::read_dir(&folder.0).expect("ours").count(),
                if copies { 2 } else { 1 },
                "nothing is left over"
            );
        }
    }

    #[test]
    fn a_folder_that_cannot_be_copied_leaves_what_is_there() {
        let folder = Folder::new();
        let long = |at: PathBuf, parts: usize| (0..parts).fold(at, |at, _| at.join("d".repeat(200)));
        let (from, above) = (folder.at("from"), long(folder.at("above"), 3));
        let to = above.join("to");
        // The paths of the copy are too long for the system, those of the original aren't.
        fs::create_dir_all(long(from.clone(), 18)).expect("create");
        fs::create_dir_all(to.join("old")).expect("create");
        let error = replace_by_folder(&from, &to, &meta(&from), &meta(&to), true).expect_err("too long");
        assert_eq!(error.error.kind(), io::ErrorKind::InvalidFilename);
        assert!(to.join("old").exists());
        assert_eq!(fs::read_dir(&above).expect("ours").count(), 1, "nothing is left over");
    }

    #[test]
    fn a_file_takes_the_place_of_another() {
        let folder = Folder::new();
        let (from, to) = (folder.at("from"), folder.at("to"));
        write(&from, "new", 0o644);
        write(&to, "older", 0o600);
        copy(&from, &to, &meta(&from)).expect("it is allowed");
        assert_eq!((fs::read_to_string(&to).expect("there"), meta(&to).mode() & 0o777), ("new".into(), 0o644));
        let error = copy(&from, &folder.at("no/to"), &meta(&from)).expect_err("there is no folder");
        assert_eq!(error.error.kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(&folder.0).expect("ours").count(), 2, "nothing is left over");
        rename(&from, &to, &meta(&from)).expect("it is allowed");
        assert!(!from.exists());
    }

    #[test]
    fn the_target_of_a_link_is_not_removed() {
        let folder = Folder::new();
        fs::create_dir_all(folder.at("tree/sub")).expect("create");
        fs::create_dir_all(folder.at("kept")).expect("create");
        write(&folder.at("kept/file"), "text", 0o644);
        symlink(folder.at("kept"), folder.at("tree/sub/link")).expect("link");
        remove(&folder.at("tree"), true).expect("ours");
        assert!(!folder.at("tree").exists() && folder.at("kept/file").exists());
        assert_eq!(remove(&folder.at("tree"), true).expect_err("gone").error.kind(), io::ErrorKind::NotFound);
    }
}
