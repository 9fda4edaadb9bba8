//! Reaping children, in a process of its own: any child of the process would be reaped.

use os::process::{Exit, kill, wait_any};

fn reap() -> (i32, Exit) {
    loop {
        if let Some(ended) = wait_any().expect("a child") {
            return ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
#[expect(clippy::zombie_processes, reason = "they are waited for by other means")]
fn children_are_reaped() {
    assert!(wait_any().is_err(), "there is none");
    let spawn = |script: &str| {
        let child = std::process::Command::new("sh").args(["-c", script]).spawn().expect("a child");
        child.id() as i32
    };
    let child = spawn("exit 7");
    assert_eq!(reap(), (child, Exit::Code(7)));
    let child = spawn("sleep 100");
    assert_eq!(wait_any().expect("a child"), None);
    kill(child, os::signal::SIGKILL).expect("kill");
    assert_eq!(reap(), (child, Exit::Signal(os::signal::SIGKILL, false)));
}
