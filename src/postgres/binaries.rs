//! Finding the programs of Postgres, and the user that may run them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

use super::Failure;

/// Where distributions keep each major version, with `{}` in place of its number.
const PLACES: &[&str] = &[
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/usr/local/pgsql-{}/bin",
];
/// Newest major to look for first, and the oldest that works.
const MAJORS: std::ops::RangeInclusive<u32> = 14..=30;

/// Find the directory of `initdb` and `postgres`, of one major if a data directory asks for it.
///
/// # Errors
/// When there is none, with what to do.
pub(super) fn find(given: Option<&Path>, major: Option<u32>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return if has_programs(given) {
            Ok(given.to_owned())
        } else {
            Err(Failure::new(format!(
                "FASTPUBSUB_PG_BIN: no initdb and postgres in {}",
                given.display()
            )))
        };
    }
    let majors: Vec<u32> = match major {
        Some(major) => vec![major],
        None => MAJORS.rev().collect(),
    };
    let installed = majors
        .iter()
        .flat_map(|major| {
            PLACES
                .iter()
                .map(|place| place.replace("{}", &major.to_string()))
        })
        .map(PathBuf::from);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    installed
        .chain(on_path)
        .find(|place| has_programs(place))
        .ok_or_else(|| {
            Failure::new(match major {
                Some(major) => format!(
                    "PostgreSQL {major} is not installed: install it (Debian: apt-get install \
                     postgresql), name its programs' directory with FASTPUBSUB_PG_BIN, or name a \
                     database with FASTPUBSUB_DATABASE_URL"
                ),
                // as in a container, whose image has none
                None => "set FASTPUBSUB_DATABASE_URL to \
                         postgresql://USER:PASSWORD@HOST:5432/DATABASE: there is no PostgreSQL here \
                         to run a private database with (no initdb and postgres in the usual places, \
                         on PATH or in FASTPUBSUB_PG_BIN)"
                    .to_owned(),
            })
        })
}

fn has_programs(place: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|program| place.join(program).is_file())
}

/// Postgres refuses to run as root: then `postgres` or `nobody` runs it. None: we do.
///
/// # Errors
/// When root has no other user to run it.
pub(super) fn owner() -> Result<Option<User>, Failure> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(Some)
        .ok_or_else(|| Failure::new("root cannot run Postgres, and there is no user postgres"))
}

/// Check that `user` may enter every directory above `dir`.
///
/// # Errors
/// Naming the first one that it may not.
pub(super) fn check_reachable(dir: &Path, user: &User) -> Result<(), Failure> {
    let mut above: Vec<&Path> = dir.ancestors().skip(1).collect();
    above.reverse();
    for parent in above {
        let Ok(meta) = fs::metadata(parent) else {
            continue;
        };
        let bits = meta.permissions().mode();
        let may_enter = match (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid())) {
            (uid, _) if uid == user.uid => bits & 0o100,
            (_, gid) if gid == user.gid => bits & 0o010,
            _ => bits & 0o001,
        };
        if may_enter == 0 {
            return Err(Failure::new(format!(
                "FASTPUBSUB_DATA_DIR is {}, but user {}, who runs Postgres for root, may not \
                 enter {}: choose a directory elsewhere, such as /var/lib/fastpubsub",
                dir.display(),
                user.name,
                parent.display()
            )));
        }
    }
    Ok(())
}
