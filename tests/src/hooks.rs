//! The program with the feature `test-hooks`; if `TIDEGATE_BINARY` is a Tidegate without it, one is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{binary, target};

fn lacks_hooks(program: &Path) -> bool {
    let directives = Command::new(program).arg("--dump-directives").output();
    let directives = directives.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    directives.contains("\tlisten\t") && !directives.contains("\ttest_hook\t")
}

/// Where it is.
pub fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| if lacks_hooks(&binary()) { build() } else { binary() }).clone()
}

/// The command is the one of `cargo xtask test`, which has built it before: then this takes a moment.
fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand inside the workspace");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["build", "--quiet", "--workspace", "--features", "tidegate/test-hooks"]);
    cargo.args(["--bin", "tidegate", "--test", "system"]);
    assert!(cargo.status().expect("cargo is there").success(), "the program is built");
    // Moved away, so that no test takes it for the newest build.
    let (built, place) = (target().join("debug/tidegate"), target().join("test-hooks"));
    let program = place.join("tidegate");
    let moved = fs::create_dir_all(&place).and_then(|()| fs::rename(built, &program));
    // Another test may have moved it a moment ago.
    assert!(moved.is_ok() || program.is_file(), "{moved:?}");
    program
}
