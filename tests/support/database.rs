//! A private Postgres that all tests share, and a database per test, cloned from a template.
//!
//! The Postgres is started by the first test that needs it and left running for the others and the
//! next run; `make test` stops it. A database is dropped when its test passes and kept when it fails.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::OnceLock;

use fastpubsub::db::database::Database;
use fastpubsub::db::pooler::Sessions;
use fastpubsub::db::schema;
use fastpubsub::postgres::Embedded;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use uuid::Uuid;

use super::hostile;

/// One per user, where the Makefile does not say so.
fn directory() -> PathBuf {
    let default = || {
        let uid = nix::unistd::Uid::effective();
        std::env::temp_dir().join(format!("fastpubsub-test-{uid}"))
    };
    std::env::var_os("FASTPUBSUB_TEST_DATA_DIR").map_or_else(default, PathBuf::from)
}

/// How to reach the private Postgres.
pub async fn server() -> PgConnectOptions {
    let bin = std::env::var_os("FASTPUBSUB_PG_BIN").map(PathBuf::from);
    let embedded = Embedded::start(&directory(), bin.as_deref(), false)
        .await
        .unwrap();
    embedded.options().unwrap()
}

/// SQL that breaks something after the migration, from the file that FASTPUBSUB_TEST_MUTATION names.
fn mutation() -> Option<String> {
    let file = std::env::var_os("FASTPUBSUB_TEST_MUTATION")?;
    Some(std::fs::read_to_string(file).unwrap())
}

/// Nothing of the tests has to outlive a crash of the machine.
const CARELESS: [&str; 5] = [
    "alter system set fsync = off",
    "alter system set full_page_writes = off",
    "alter system set max_wal_size = '2GB'",
    "alter system set checkpoint_timeout = '1h'",
    "select pg_reload_conf()",
];

/// The template, created once for each version of the schema, and for each mutation of it.
async fn template(server: &PgConnectOptions, admin: &mut PgConnection) -> String {
    let kind = if hostile::is_profile() {
        "hostile"
    } else {
        "test"
    };
    let mut name = format!("pubsub_{kind}_{}", schema::checksum());
    let mutation = mutation();
    if let Some(mutation) = &mutation {
        let mut hasher = DefaultHasher::new();
        mutation.hash(&mut hasher);
        name += &format!("_{:x}", hasher.finish());
    }
    if exists(admin, &name).await {
        return name;
    }
    let mut lock = admin.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)")
        .execute(&mut *lock)
        .await
        .unwrap();
    if !exists(&mut lock, &name).await {
        build(server, &name, mutation).await;
    }
    lock.commit().await.unwrap();
    name
}

async fn exists(connection: &mut PgConnection, database: &str) -> bool {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(database)
        .fetch_one(connection)
        .await
        .unwrap()
}

/// It has the template's name once it is complete.
async fn build(server: &PgConnectOptions, name: &str, mutation: Option<String>) {
    for setting in CARELESS {
        execute(server, setting).await;
    }
    if mutation.is_some() {
        drop_mutated(server).await;
    }
    let building = format!("{name}_building");
    execute(server, &format!("drop database if exists {building}")).await;
    execute(server, &format!("create database {building}")).await;
    let mut options = server.clone().database(&building);
    if hostile::is_profile() {
        hostile::prepare(&options).await;
        options = options.username(hostile::OWNER);
    }
    let mut connection = options.connect().await.unwrap();
    schema::migrate(&mut connection).await.unwrap();
    if let Some(mutation) = mutation {
        sqlx::raw_sql(AssertSqlSafe(mutation))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
    let rename = format!("alter database {building} rename to {name}");
    execute(server, &rename).await;
}

/// One mutation is tried after the other, so no more than one template is needed.
async fn drop_mutated(server: &PgConnectOptions) {
    let mut connection = server.connect().await.unwrap();
    let names: Vec<String> = sqlx::query_scalar(
        "select datname::text from pg_database where datname ~ '^pubsub_(test|hostile)_[^_]*_'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    for name in names {
        execute(server, &format!("drop database {name}")).await;
    }
}

pub async fn execute(server: &PgConnectOptions, sql: &str) {
    let mut connection = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// A database of one test.
pub struct TestDatabase {
    options: PgConnectOptions,
    name: String,
    shared: bool,
    pool: OnceLock<Database>,
}

impl TestDatabase {
    /// With our schema and nothing in it.
    pub async fn create() -> Self {
        let mut database = Self::create_on(&server().await).await;
        if hostile::is_profile() {
            // a database does not inherit those of its template
            hostile::set_defaults(&database.options).await;
            database.options = database.options.clone().username(hostile::OWNER);
        }
        database
    }

    /// With our schema and nothing in it, on another Postgres than the shared one.
    pub async fn create_on(server: &PgConnectOptions) -> Self {
        let mut admin = server.connect().await.unwrap();
        let template = template(server, &mut admin).await;
        // without fsync a third of the work; the only way before 15
        let strategy = match admin.server_version_num() {
            Some(150_000..) => "strategy file_copy",
            _ => "",
        };
        let how = format!("template {template} {strategy}");
        Self::create_as(server, admin, &how).await
    }

    /// Without anything.
    pub async fn create_empty() -> Self {
        let server = server().await;
        let admin = server.connect().await.unwrap();
        Self::create_as(&server, admin, "template template0").await
    }

    async fn create_as(server: &PgConnectOptions, mut admin: PgConnection, how: &str) -> Self {
        let name = format!("t_{}", Uuid::now_v7().simple());
        let create = format!("create database {name} {how}");
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        Self {
            options: server.clone().database(&name),
            name,
            shared: false,
            pool: OnceLock::new(),
        }
    }

    /// The same database for a second user of it; the first one drops it.
    pub fn share(&self) -> Self {
        Self {
            options: self.options.clone(),
            name: self.name.clone(),
            shared: true,
            pool: OnceLock::new(),
        }
    }

    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// As the superuser of the private Postgres, whoever the test is.
    pub fn superuser(&self) -> PgConnectOptions {
        self.options.clone().username("postgres")
    }

    /// A URL for the binary.
    pub fn url(&self) -> String {
        let host = self.options.get_socket().map_or_else(
            || self.options.get_host().to_owned(),
            |socket| socket.display().to_string(),
        );
        let user = self.options.get_username();
        format!("postgresql://{user}@localhost/{}?host={host}", self.name)
    }

    /// A pool with the session settings of the service, the same at each call.
    pub fn pool(&self) -> Database {
        let new = || Database::new(&super::settings(&[]), self.options(), Sessions::Own);
        self.pool.get_or_init(new).clone()
    }

    /// One connection with the session settings of the service.
    pub async fn connect(&self) -> PgConnection {
        let mut connection = fastpubsub::db::connect(&self.options).await.unwrap();
        fastpubsub::db::prepare_session(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// One connection as psql would make it.
    pub async fn plain(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // of a mutation it is known why the test fails
        let is_kept = std::thread::panicking() && mutation().is_none();
        if self.shared || is_kept {
            return;
        }
        let server = self.superuser().database("postgres");
        let name = self.name.clone();
        // a drop cannot await, and the runtime of the test may be ending
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let drop = format!("drop database if exists {name} with (force)");
            runtime.unwrap().block_on(execute(&server, &drop));
        })
        .join()
        .unwrap();
    }
}
