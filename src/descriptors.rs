//! File descriptors: as many as the system lets this process have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raise the soft limit to the hard one; returns what holds now, if that can be told.
#[must_use]
pub fn raise_limit() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).ok()
}
