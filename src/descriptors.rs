//! File descriptors: as many as the system lets this process have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Most pushes at a time, each of which has a connection, where there may be so many descriptors.
#[must_use]
pub fn for_pushes(limit: usize) -> usize {
    (limit / 8).clamp(1, 1000)
}

/// Raise the soft limit to the hard one; returns what holds now, if that can be told.
#[must_use]
pub fn raise_limit() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).ok()
}
