//! The folders of the default paths, so that a first start on a fresh machine works.
//!
//! A user who isn't the superuser has them inside the system's folder for temporary files, where anybody may have made
//! one of that name before, or a link to elsewhere: only one that is the user's own is used.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use engine::personality::Personality;

/// Makes what isn't there. A folder that can't be made shows up where it is needed; one that others could have put there
/// or can write to is an error.
pub(crate) fn make(personality: &Personality) -> Result<(), String> {
    let uid = os::users::effective_uid();
    if uid != 0 {
        return own(&personality.temp, uid);
    }
    for path in [&personality.http_log, &personality.pid] {
        if let Some(folder) = path.parent() {
            let _ = fs::create_dir_all(folder);
        }
    }
    if !personality.temp.exists() && fs::create_dir_all(&personality.temp).is_ok() {
        // Workers pass through it to folders of their own, whatever the mask for new files is.
        let _ = fs::set_permissions(&personality.temp, fs::Permissions::from_mode(0o755));
    }
    Ok(())
}

/// A folder that belongs to this user, and that nobody else writes to.
fn own(folder: &Path, uid: u32) -> Result<(), String> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        _ => return Ok(()),
    }
    // Not through a link: whoever made it could change where it leads.
    let safe = fs::symlink_metadata(folder)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & OTHERS_WRITE == 0);
    if safe {
        return Ok(());
    }
    Err(format!(
        "\"{}\" isn't a folder that belongs to you alone, so temporary files would not be safe in it: remove it, or name \
         another folder for temporary files in the environment, with TMPDIR",
        buf::text::path(folder)
    ))
}

/// The permissions of the group and of all others to write.
const OTHERS_WRITE: u32 = 0o022;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_ones_own() {
        let root = tempfile::TempDir::with_prefix("tidegate-own-").expect("a new folder");
        let root = root.path();
        let uid = fs::metadata(root).expect("it is there").uid();
        let folder = root.join("a");
        for _ in 0..2 {
            own(&folder, uid).expect("made, then found");
        }
        assert_eq!(fs::metadata(&folder).expect("it is there").mode() & 0o777, 0o700);
        own(&folder, uid + 1).expect_err("another user's");
        symlink(&folder, root.join("b")).expect("a link");
        own(&root.join("b"), uid).expect_err("a link");
        symlink(root.join("nowhere"), root.join("c")).expect("a link");
        own(&root.join("c"), uid).expect_err("a link to nowhere");
        fs::write(root.join("d"), "").expect("a file");
        own(&root.join("d"), uid).expect_err("a file");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o720)).expect("ours");
        own(&folder, uid).expect_err("its group writes");
    }
}
