//! API keys of the PyQueue door and what they may do, as its settings say them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The entry of a key that stands for every queue.
pub const EVERY_QUEUE: &str = "*";

/// What a key may do with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// See and receive messages.
    Read,
    /// Add and change messages.
    Write,
    /// Delete messages one by one.
    Delete,
    /// Delete all messages.
    Manage,
}

impl Permission {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Delete, Self::Manage];

    /// Its name, as in errors and scopes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Manage => "manage",
        }
    }

    /// Names compare without case: PyQueue's README and its code differed.
    fn parse(name: &str) -> Option<Self> {
        let is_named = |permission: &Self| name.eq_ignore_ascii_case(permission.name());
        Self::ALL.into_iter().find(is_named)
    }
}

/// What a key stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// What it is for, in the words of whoever made it.
    pub description: String,
    /// What it may do, by queue.
    pub queues: BTreeMap<String, BTreeSet<Permission>>,
}

/// Keys, found by their SHA-256: comparing digests tells nothing about a key in its time.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(HashMap<[u8; 32], Arc<Key>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    description: String,
    queues: BTreeMap<String, Vec<String>>,
}

impl Keys {
    /// Read `{"KEY": {"description": "...", "queues": {"NAME": ["read", ...]}}}`.
    ///
    /// # Errors
    /// What is wrong, without any key.
    pub fn parse(text: &str) -> Result<Self, String> {
        // what serde says of a text that is not JSON has only its place
        let given: BTreeMap<String, Given> = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!(
                "must be JSON such as {{\"KEY\": {{\"description\": \"...\", \"queues\": \
                 {{\"*\": [\"read\", \"write\"]}}}}}}; it is not, at line {line}, column {column}"
            )
        })?;
        let mut keys = Self::default();
        for (
            key,
            Given {
                description,
                queues,
            },
        ) in given
        {
            if key.is_empty() {
                return Err("has a key of no characters".to_owned());
            }
            let queues = queues
                .into_iter()
                .map(|(queue, names)| {
                    let permissions = names.iter().map(|name| {
                        Permission::parse(name).ok_or_else(|| {
                            format!(
                                "gives the permission {name:?} on {queue:?}; there are read, \
                                 write, delete and manage"
                            )
                        })
                    });
                    Ok((queue.clone(), permissions.collect::<Result<_, String>>()?))
                })
                .collect::<Result<_, String>>()?;
            let key = Sha256::digest(key.as_bytes()).into();
            let stands_for = Key {
                description,
                queues,
            };
            keys.0.insert(key, Arc::new(stands_for));
        }
        Ok(keys)
    }

    /// Add keys, which win over those there are.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a key stands for, if there is such a key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Arc<Key>> {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        self.0.get(&digest)
    }
}

impl Key {
    /// What it may do with a queue: as its entry for every queue says, if it has one, and then only that.
    #[must_use]
    pub fn permissions(&self, queue: &str) -> BTreeSet<Permission> {
        let entry = self
            .queues
            .get(EVERY_QUEUE)
            .or_else(|| self.queues.get(queue));
        entry.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_permissions_of_its_entry_for_all_queues_and_then_only_those() {
        let keys = r#"{"a": {"description": "A", "queues": {"*": ["READ"], "q": ["write"]}},
            "b": {"queues": {"q": ["write", "Delete"]}}}"#;
        let keys = Keys::parse(keys).unwrap();

        let (a, b) = (keys.find("a").unwrap(), keys.find("b").unwrap());

        assert_eq!(a.permissions("q"), [Permission::Read].into());
        assert_eq!(
            b.permissions("q"),
            [Permission::Write, Permission::Delete].into()
        );
        assert_eq!(b.permissions("Q"), [].into());
        assert!(keys.find("c").is_none());
        assert_eq!((a.description.as_str(), b.description.as_str()), ("A", ""));
    }

    #[test]
    fn what_is_wrong_with_keys_is_told_without_them() {
        for (text, wrong) in [
            ("", "must be JSON"),
            (r#"{"sesame": {"permissions": ["read"]}}"#, "must be JSON"),
            (r#"{"sesame": 5}"#, "must be JSON"),
            (
                r#"{"sesame": {"queues": {"q": ["open"]}}}"#,
                r#""open" on "q""#,
            ),
            (r#"{"": {"queues": {}}}"#, "no characters"),
        ] {
            let refused = Keys::parse(text).unwrap_err();
            assert!(refused.contains(wrong), "{refused}");
            assert!(!refused.contains("sesame"), "{refused}");
        }
        let keys = Keys::parse(r#"{"sesame": {"queues": {}}}"#).unwrap();
        assert_eq!(format!("{keys:?}"), "1 keys");
    }
}
