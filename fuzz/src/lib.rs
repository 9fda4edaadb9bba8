//! What a fuzz target is built from: under `cargo fuzz` a target for libFuzzer, in an ordinary build a program that gives
//! the target each file of a corpus once. The second needs no libFuzzer and no instrumentation, so the tests can do it.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// Makes a program of a target: `tidegate_fuzz::target!(|data: &[u8]| …);`
#[macro_export]
macro_rules! target {
    (|$data:ident: &[u8]| $body:expr) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|$data: &[u8]| $body);

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::replay(|$data: &[u8]| $body)
        }
    };
}

/// Gives the target each file that the arguments name, and each file in the folders that they name. Fails if there is
/// none; an input that makes the target panic is named before the program ends.
pub fn replay(target: impl Fn(&[u8])) -> ExitCode {
    let inputs: Vec<PathBuf> = std::env::args_os().skip(1).flat_map(|argument| files(Path::new(&argument))).collect();
    for input in &inputs {
        let Ok(data) = std::fs::read(input) else {
            eprintln!("{} can't be read", input.display());
            return ExitCode::FAILURE;
        };
        let name = Named(input);
        target(&data);
        std::mem::forget(name);
    }
    println!("{} inputs", inputs.len());
    if inputs.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The files in a folder, or the one file.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_path_buf()] };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    found.sort();
    found
}

/// Tells the input's name if the target panics.
struct Named<'a>(&'a Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("the input was {}", self.0.display());
    }
}
