//! A database that is set against us: every default that changes what SQL means, and a schema of
//! somebody else's that comes first in the search_path. Ours belongs to a plain role.
//!
//! With FASTPUBSUB_TEST_HOSTILE set, tests run on such databases.

use std::collections::BTreeSet;

use fastpubsub::db::schema::ROUTINES;
use sqlx::postgres::PgConnectOptions;

use super::database::execute;

/// Owns the schemas; neither superuser nor owner of the database, and may create nothing in public.
pub const OWNER: &str = "fastpubsub_owner";

const PROFILE: &str = "FASTPUBSUB_TEST_HOSTILE";

const TROJANS: &str = include_str!("../hostile/trojans.sql");

const SETTINGS: &str = include_str!("../hostile/settings.sql");

/// Whether tests are to run on hostile databases.
pub fn is_profile() -> bool {
    std::env::var_os(PROFILE).is_some()
}

/// Make a database hostile before there is any schema of ours in it, which its owner made beforehand.
pub async fn prepare(superuser: &PgConnectOptions) {
    create_roles(superuser).await;
    plant_trojans(superuser).await;
    execute(
        superuser,
        &format!(
            "revoke create on schema public from public; \
             create schema pubsub authorization {OWNER}; \
             create schema pubsub_data authorization {OWNER}"
        ),
    )
    .await;
    set_defaults(superuser).await;
}

/// The roles of all hostile databases, which several tests may be making.
pub async fn create_roles(superuser: &PgConnectOptions) {
    execute(
        superuser,
        &format!(
            "select pg_advisory_lock(2); \
             do $$ begin \
                 if to_regrole('{OWNER}') is null then create role {OWNER} login; end if; \
                 if to_regrole('fastpubsub_mallory') is null \
                 then create role fastpubsub_mallory login; end if; \
             end $$"
        ),
    )
    .await;
}

/// The schema `trojans`, with twins of what our files use.
pub async fn plant_trojans(superuser: &PgConnectOptions) {
    let used: BTreeSet<&str> = ROUTINES
        .iter()
        .flat_map(|(_, text)| text.split('('))
        .filter_map(|before| {
            before
                .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
        })
        .filter(|name| !name.is_empty())
        .collect();
    let used: Vec<&str> = used.into_iter().collect();
    execute(
        superuser,
        &format!("set trojans.names = '{}'; {TROJANS}", used.join(" ")),
    )
    .await;
}

/// Set every default of the database against us.
pub async fn set_defaults(database: &PgConnectOptions) {
    execute(&database.clone().username("postgres"), SETTINGS).await;
}
