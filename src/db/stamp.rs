//! The stamp on a database's schema: which fastpubsub made it.

use sha2::{Digest, Sha256};

use super::schema::{Fit, ROUTINES, migrations};

/// What the comment on schema pubsub says: which migrations, which release, which files.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    migration: u32,
    release: (u32, u32, u32),
    pub(super) checksum: String,
}

impl Stamp {
    /// This binary's.
    pub(super) fn ours() -> Self {
        let migrations = migrations::runner().get_migrations().clone();
        let mut digest = Sha256::new();
        for migration in &migrations {
            digest.update(migration.checksum().to_le_bytes());
        }
        for (name, sql) in ROUTINES {
            digest.update(name);
            digest.update(sql);
        }
        let checksum = digest
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            migration: migrations
                .iter()
                .filter_map(|migration| u32::try_from(migration.version()).ok())
                .max()
                .unwrap_or_default(),
            release: release(env!("CARGO_PKG_VERSION")),
            checksum,
        }
    }

    /// Of a comment, if it is one of ours.
    pub(super) fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix("fastpubsub ")?.split(' ');
        let release = release(words.next()?);
        let migration = words.next()?.strip_prefix("schema=")?.parse().ok()?;
        let checksum = words.next()?.strip_prefix("checksum=")?.to_owned();
        Some(Self {
            migration,
            release,
            checksum,
        })
    }

    /// As the comment.
    pub(super) fn comment(&self) -> String {
        let (major, minor, patch) = self.release;
        format!(
            "fastpubsub {major}.{minor}.{patch} schema={} checksum={}",
            self.migration, self.checksum
        )
    }

    /// How the database's compares to this one.
    pub(super) fn fit(&self, database: Option<&Self>) -> Fit {
        match database {
            Some(stamp) if stamp.checksum == self.checksum => Fit::Same,
            Some(stamp) if (stamp.migration, stamp.release) > (self.migration, self.release) => {
                Fit::Newer
            }
            _ => Fit::Older,
        }
    }
}

fn release(version: &str) -> (u32, u32, u32) {
    let mut numbers = version
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(migration: u32, release: (u32, u32, u32), checksum: &str) -> Stamp {
        Stamp {
            migration,
            release,
            checksum: checksum.to_owned(),
        }
    }

    #[test]
    fn a_stamp_survives_its_comment() {
        let ours = Stamp::ours();
        assert_eq!(Stamp::parse(&ours.comment()), Some(ours));
    }

    #[test]
    fn a_schema_is_newer_by_migration_or_by_release() {
        let ours = stamp(2, (1, 2, 0), "a");
        assert_eq!(ours.fit(Some(&stamp(2, (1, 2, 0), "a"))), Fit::Same);
        assert_eq!(ours.fit(Some(&stamp(3, (1, 2, 0), "b"))), Fit::Newer);
        assert_eq!(ours.fit(Some(&stamp(2, (1, 10, 0), "b"))), Fit::Newer);
        assert_eq!(ours.fit(Some(&stamp(2, (1, 2, 0), "b"))), Fit::Older);
        assert_eq!(ours.fit(Some(&stamp(1, (1, 1, 0), "b"))), Fit::Older);
        assert_eq!(ours.fit(None), Fit::Older);
    }
}
