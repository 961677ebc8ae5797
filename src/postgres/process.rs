//! The running postmaster, as its pid file tells.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

/// A postmaster that is alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Postmaster {
    pid: Pid,
    /// Its TCP port, or the number in its socket's name.
    pub(super) port: u16,
    /// Whether it takes connections.
    pub(super) ready: bool,
}

/// The postmaster of a cluster, if one is alive. Its pid file has the pid in line 1, the data
/// directory in line 2, the port in line 4 and the state in line 8.
pub(super) fn postmaster(cluster: &Path) -> Option<Postmaster> {
    let file = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let pid = Pid::from_raw(lines.first()?.parse().ok()?);
    let postmaster = Postmaster {
        pid,
        port: lines
            .get(3)
            .and_then(|port| port.parse().ok())
            .unwrap_or_default(),
        ready: lines.get(7) == Some(&"ready"),
    };
    (postmaster.is_alive() && runs_on(pid, cluster)).then_some(postmaster)
}

/// After a reboot the pid may belong to any process.
fn runs_on(pid: Pid, cluster: &Path) -> bool {
    let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
        // no /proc here: believe the pid file
        return !Path::new("/proc/self").exists();
    };
    String::from_utf8_lossy(&arguments)
        .split('\0')
        .any(|argument| Path::new(argument) == cluster)
}

impl Postmaster {
    /// Whether the process exists and is not a zombie.
    pub(super) fn is_alive(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.pid));
        let zombie = state.is_ok_and(|state| {
            state
                .rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('Z'))
        });
        kill(self.pid, None).is_ok() && !zombie
    }

    /// Ask for a fast shutdown: running transactions are rolled back.
    pub(super) fn interrupt(&self) {
        // already gone is as good
        let _gone = kill(self.pid, Signal::SIGINT);
    }
}

/// A postmaster that is not ready yet; a start that is broken off ends it.
pub(super) struct Starting(pub(super) Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        let pid = self.0.as_ref().and_then(Child::id);
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}

/// The cluster of a postmaster that this start has made ready; a start that is broken off ends it.
pub(super) struct Unfinished(pub(super) Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(postmaster) = self.0.as_deref().and_then(postmaster) {
            postmaster.interrupt();
        }
    }
}
