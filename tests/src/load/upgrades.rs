//! The steps by which a running program is replaced, as nginx's manual tells a person to take them.

use rustix::process::Signal;

use super::{Subject, alive};

impl Subject {
    /// USR2: a new master, started from the file that lies there now, works beside the old one. Returns the new master.
    pub fn start_new(&self) -> Result<u32, String> {
        let old = self.master;
        self.signal(old, Signal::USR2);
        self.wait("the old pid file", |s| s.pid_in_file("nginx.pid.oldbin") == Some(old))?;
        self.wait("a new master", |s| s.pid_in_file("nginx.pid").is_some_and(|p| p != old && alive(p)))?;
        let new = self.pid_in_file("nginx.pid").unwrap_or(0);
        self.wait("the new master's workers", |s| s.workers(new).len() >= s.settings.workers)?;
        Ok(new)
    }

    /// WINCH to a master: its workers finish and leave.
    pub fn retire(&self, master: u32) -> Result<(), String> {
        self.signal(master, Signal::WINCH);
        self.wait("the end of the retired workers", |s| s.workers(master).is_empty())
    }

    /// QUIT to a master, and its end.
    pub fn quit(&self, master: u32) -> Result<(), String> {
        self.signal(master, Signal::QUIT);
        self.wait("the end of a master", |s| !alive(master) && !s.processes().contains(&master))
    }

    /// A whole upgrade: the new master stays.
    pub fn upgrade(&mut self) -> Result<(), String> {
        let (old, new) = (self.master, self.start_new()?);
        self.retire(old)?;
        self.quit(old)?;
        self.master = new;
        self.check_pid_file(new)
    }

    /// An upgrade that is taken back: the old master's workers return, the new master leaves.
    pub fn rollback(&mut self) -> Result<(), String> {
        let (old, new) = (self.master, self.start_new()?);
        self.retire(old)?;
        self.signal(old, Signal::HUP);
        self.wait("the old master's workers", |s| s.workers(old).len() >= s.settings.workers)?;
        self.quit(new)?;
        self.check_pid_file(old)
    }

    fn check_pid_file(&self, master: u32) -> Result<(), String> {
        self.wait("the pid file", |s| {
            s.pid_in_file("nginx.pid") == Some(master) && s.pid_in_file("nginx.pid.oldbin").is_none()
        })
    }
}
