//! The program with the feature `test-hooks`; if `TIDEGATE_BINARY` is a Tidegate without it, one is built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binary;

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

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand inside the workspace");
    let target = crate::target().join("test-hooks");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["build", "-q", "-p", "tidegate", "--features", "test-hooks", "--target-dir"]);
    assert!(cargo.arg(&target).status().expect("cargo is there").success(), "the program is built");
    target.join("debug/tidegate")
}
