//! The program built by its own profiles: the compiler's (PGO) and that of the code's layout (BOLT).
//!
//! An instrumented program is trained, the program is compiled by what that counted, instrumented once more by BOLT,
//! trained again, and laid out. Both profiles are kept: from the same ones the same bytes come, wherever the source lies.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::train;
use crate::test;
use crate::tools::{self, Outcome};

/// The compiler's profile, and the layout's, in the folder `profile`.
const COMPILER: &str = "tidegate.profdata";
const LAYOUT: &str = "tidegate.fdata";

/// How BOLT lays out the code: blocks and functions by how often they ran, what never ran in a part of its own. Functions
/// that didn't run stay where they are.
const BOLT: [&str; 8] = [
    "-reorder-blocks=ext-tsp",
    "-reorder-functions=cdsort",
    "-split-functions",
    "-split-all-cold",
    "-split-eh",
    "-icf",
    "-lite",
    "-no-huge-pages",
];

/// What BOLT leaves as it is, and where it is: all that isn't Rust, by the beginning of its name. Cryptography is written in
/// assembler that jumps to addresses it has computed, and whose parts call each other without the linker's knowledge.
const SKIPPED: &str = "-skip-funcs=[^_].*,_[^ZR].*,_Z[^N].*";

/// Where things are.
struct Recipe {
    /// What the compiler builds for, and where its own files are.
    triple: String,
    sysroot: PathBuf,
    /// Reads the profiles of this compiler.
    profdata: Option<PathBuf>,
    bolt: Option<PathBuf>,
    /// Where cargo builds.
    target: PathBuf,
}

/// Builds the release into a folder, from profiles that are given or from new ones.
pub(crate) fn release(place: &Path, given: Option<&Path>) -> Outcome<PathBuf> {
    install();
    let recipe = Recipe::new(&place.join("build"))?;
    let kept = place.join("profile");
    match given {
        Some(folder) => keep(folder, &kept)?,
        None => recipe.train_compiler(&kept)?,
    }
    let built = recipe.optimised(&kept)?;
    if given.is_none() {
        recipe.train_layout(&built, &kept)?;
    }
    let program = place.join("tidegate");
    recipe.lay_out(&built, &kept, &program)?;
    Ok(program)
}

/// Builds it anew in another folder, from the profiles that were kept in the first one.
pub(crate) fn again(first: &Path, place: &Path) -> Outcome<PathBuf> {
    let recipe = Recipe::new(&place.join("build"))?;
    let kept = first.join("profile");
    let built = recipe.optimised(&kept)?;
    let program = place.join("tidegate");
    recipe.lay_out(&built, &kept, &program)?;
    Ok(program)
}

/// Installs the tools, where that is possible.
fn install() {
    test::install(&[
        ("/usr/bin/llvm-bolt-19", "bolt-19"),
        ("/usr/bin/dpkg-shlibdeps", "dpkg-dev"),
        ("/usr/bin/openssl", "openssl"),
    ]);
    let has_profdata = Recipe::new(Path::new("")).is_ok_and(|recipe| recipe.profdata.is_some());
    if !has_profdata && (tools::find("rustup").is_some() || tools::find_in_cargo_home("rustup")) {
        println!("== rustup component add llvm-tools");
        let _ = Command::new("rustup").args(["component", "add", "llvm-tools"]).stderr(Stdio::null()).status();
    }
}

/// Takes the profiles of an earlier run.
fn keep(folder: &Path, kept: &Path) -> Outcome {
    let mut found = 0;
    for name in [COMPILER, LAYOUT] {
        let (from, to) = (folder.join(name), kept.join(name));
        if from.exists() {
            found += 1;
            let bytes = fs::read(&from).map_err(|error| format!("{}: {error}", from.display()))?;
            write(&to, &bytes)?;
        } else {
            let _ = fs::remove_file(&to);
        }
    }
    if found > 0 { Ok(()) } else { Err(format!("{}: no profile is there", folder.display())) }
}

fn write(path: &Path, bytes: &[u8]) -> Outcome {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, bytes)).map_err(|error| format!("{}: {error}", path.display()))
}

impl Recipe {
    fn new(target: &Path) -> Outcome<Recipe> {
        let rustc = |arguments: &[&str]| {
            let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
            command.current_dir(tools::root()).args(arguments);
            tools::output(command)
        };
        let about = rustc(&["-vV"])?;
        let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let (triple, llvm) = (field("host:").to_string(), field("LLVM version:").split('.').next().unwrap_or_default());
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        let own = sysroot.join("lib/rustlib").join(&triple).join("bin/llvm-profdata");
        let debian = tools::find(&format!("llvm-profdata-{llvm}"));
        let profdata = own.is_file().then_some(own).or(debian);
        let bolt = (19..30).rev().find_map(|version| tools::find(&format!("llvm-bolt-{version}")));
        // Its own path, beside which it looks for its library.
        let bolt = bolt.or(tools::find("llvm-bolt")).and_then(|path| fs::canonicalize(path).ok());
        Ok(Recipe { triple, sysroot, profdata, bolt, target: target.to_path_buf() })
    }

    /// Makes the compiler's profile, unless the tool for that is missing.
    fn train_compiler(&self, kept: &Path) -> Outcome {
        let _ = fs::remove_dir_all(kept);
        let Some(profdata) = &self.profdata else {
            println!(
                "left out: PGO, since there is no llvm-profdata of the compiler's version (rustup component add llvm-tools)"
            );
            return Ok(());
        };
        println!("== a program that counts, for the compiler");
        let program = self.compile(&["-Cprofile-generate".to_string()])?;
        println!("== training");
        let raw = kept.join("raw");
        fs::create_dir_all(&raw).map_err(|error| format!("{}: {error}", raw.display()))?;
        train::run(&program, &program, &[format!("LLVM_PROFILE_FILE={}/%p.profraw", raw.display())])?;
        let mut merge = Command::new(profdata);
        merge.arg("merge").arg("-o").arg(kept.join(COMPILER)).args(tools::files(&raw));
        tools::run(merge)?;
        fs::remove_dir_all(&raw).map_err(|error| error.to_string())
    }

    /// The program compiled by the profile, if there is one; with what BOLT needs, if that is there.
    fn optimised(&self, kept: &Path) -> Outcome<PathBuf> {
        println!("== the program");
        let mut flags = Vec::new();
        if let Ok(bytes) = fs::read(kept.join(COMPILER)) {
            // Cargo looks at the name, not at what is in the file.
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes);
            let copy = self.target.join(format!("{:016x}.profdata", hasher.finish()));
            write(&copy, &bytes)?;
            flags.push(format!("-Cprofile-use={}", copy.display()));
        }
        if self.bolt.is_some() {
            flags.push("-Clink-arg=-Wl,--emit-relocs".to_string());
        }
        self.compile(&flags)
    }

    /// Builds with these flags, and with no trace of where.
    fn compile(&self, flags: &[String]) -> Outcome<PathBuf> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
        let names = [
            (tools::root().to_path_buf(), "tidegate"),
            (self.target.clone(), "build"),
            (home.unwrap_or_default().join("registry/src"), "crates"),
            (self.sysroot.join("lib/rustlib/src/rust"), "/rustc"),
        ];
        let names = names.map(|(from, to)| format!("{}={to}", from.display()));
        let rust = names.iter().map(|name| format!("--remap-path-prefix={name}")).chain(flags.iter().cloned());
        let c: Vec<String> = names.iter().map(|name| format!("-ffile-prefix-map={name}")).collect();
        let target = self.target.display().to_string();
        let form = ["--profile", "dist", "--package", "tidegate", "--features", tools::ALL_MODULES];
        // With a target's name build scripts and macros are built without these flags.
        let arguments = [&form[..], &["--target", &self.triple, "--target-dir", &target]].concat();
        let flags = rust.collect::<Vec<_>>().join("\x1f");
        tools::build_with(&arguments, &[("CARGO_ENCODED_RUSTFLAGS", &flags), ("CFLAGS", &c.join(" "))])
    }

    /// Makes the layout's profile, unless the tool for that is missing.
    fn train_layout(&self, program: &Path, kept: &Path) -> Outcome {
        let Some(bolt) = &self.bolt else {
            println!("left out: BOLT, since there is no llvm-bolt (Debian: apt-get install bolt-19)");
            return Ok(());
        };
        println!("== a program that counts, for the layout");
        let (counting, profile) = (self.target.join("counting"), kept.join(LAYOUT));
        fs::create_dir_all(kept).map_err(|error| format!("{}: {error}", kept.display()))?;
        let mut command = Command::new(bolt);
        command.arg(program).arg("-instrument").arg(SKIPPED).arg("-o").arg(&counting);
        command.arg(format!("-instrumentation-file={}", profile.display()));
        self.logged(command)?;
        println!("== training");
        train::run(&counting, program, &[])?;
        if profile.exists() { Ok(()) } else { Err("the training left no profile of the layout".to_string()) }
    }

    /// The program as it is given away: laid out, if there is a profile for that, and stripped.
    fn lay_out(&self, built: &Path, kept: &Path, to: &Path) -> Outcome {
        let profile = kept.join(LAYOUT);
        let whole = self.target.join("laid-out");
        match &self.bolt {
            Some(bolt) if profile.exists() => {
                println!("== its layout");
                let mut command = Command::new(bolt);
                command
                    .arg(built)
                    .arg("-o")
                    .arg(&whole)
                    .arg(format!("-data={}", profile.display()))
                    .args(BOLT)
                    .arg(SKIPPED);
                self.logged(command)?;
            }
            _ => fs::copy(built, &whole).map(drop).map_err(|error| format!("{}: {error}", built.display()))?,
        }
        // GNU's strip doesn't know what to make of the parts that BOLT adds.
        let own = self.sysroot.join("lib/rustlib").join(&self.triple).join("bin/rust-objcopy");
        let mut command = if own.is_file() { Command::new(own) } else { Command::new("strip") };
        command.arg("--strip-all");
        if command.get_program() == "strip" {
            command.arg("-o").arg(to).arg(&whole);
        } else {
            command.arg(&whole).arg(to);
        }
        tools::run(command)?;
        let mut version = Command::new(to);
        version.arg("-v").stderr(Stdio::null());
        tools::run(version)
    }

    /// Runs a command that says much, into a file.
    fn logged(&self, mut command: Command) -> Outcome {
        let path = self.target.join("bolt.log");
        let file = fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let copy = file.try_clone().map_err(|error| error.to_string())?;
        command.stdout(file).stderr(copy);
        tools::run(command).map_err(|error| format!("{error}; {} says why", path.display()))
    }
}
