//! The private Postgres, with its default durability, and a fresh database for each measurement:
//! what one leaves behind, another does not meet.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastpubsub::postgres::Embedded;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::process::Command;

use crate::flags::Flags;
use crate::peers::{Peer, Pgmq};

/// The program that is measured, of the same build profile as the benchmark: release.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fastpubsub");

/// Which build is measured.
#[derive(Clone)]
pub(crate) enum Build {
    This,
    /// The program of --against.
    Other(PathBuf),
}

impl Build {
    fn program(&self) -> &Path {
        match self {
            Self::This => Path::new(PROGRAM),
            Self::Other(program) => program,
        }
    }

    fn template(&self) -> &'static str {
        match self {
            Self::This => "bench_template",
            Self::Other(_) => "bench_template_other",
        }
    }
}

/// What every scenario needs.
pub(crate) struct Bench {
    pub(crate) flags: Flags,
    pub(crate) cluster: Cluster,
    pub(crate) peer: Peer,
}

impl Bench {
    /// The other queue, if it can be had.
    pub(crate) async fn pgmq(&self) -> Option<&Pgmq> {
        self.peer.pgmq(&self.cluster.directory).await
    }
}

pub(crate) struct Cluster {
    pub(crate) directory: PathBuf,
    /// The process of Postgres that started all of its others.
    pub(crate) postmaster: u32,
    /// The one that is always there.
    pub(crate) postgres: Database,
    databases: AtomicU32,
}

/// A database with our schema and the table of the reference.
#[derive(Clone)]
pub(crate) struct Database {
    /// The program whose schema it has.
    pub(crate) program: PathBuf,
    name: String,
    options: PgConnectOptions,
}

impl Cluster {
    /// Whoever calls must stop the Postgres and remove the directory.
    pub(crate) async fn start(against: Option<PathBuf>) -> (Embedded, Self) {
        let directory =
            std::env::temp_dir().join(format!("fastpubsub-bench-{}", std::process::id()));
        let embedded = Embedded::start(&directory, None, true).await.unwrap();
        let pid = std::fs::read_to_string(directory.join("pg/postmaster.pid")).unwrap();
        let cluster = Self {
            postmaster: pid.lines().next().unwrap().parse().unwrap(),
            postgres: Database {
                program: Build::This.program().to_owned(),
                name: "postgres".to_owned(),
                options: embedded.options().unwrap(),
            },
            directory,
            databases: AtomicU32::new(0),
        };
        cluster.make_template(&Build::This).await;
        if let Some(other) = against {
            cluster.make_template(&Build::Other(other)).await;
        }
        (embedded, cluster)
    }

    async fn make_template(&self, build: &Build) {
        let name = build.template();
        self.postgres
            .execute(&format!("create database {name}"))
            .await;
        let template = self.named(name, build);
        template.program(&["db-migrate"]).await;
        let mut connection = template.connect().await;
        sqlx::raw_sql(
            "create table public.raw (\
             id bigint generated always as identity primary key, payload jsonb)",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
    }

    /// A new database.
    pub(crate) async fn database(&self) -> Database {
        self.database_of(&Build::This).await
    }

    /// A new database of a build.
    pub(crate) async fn database_of(&self, build: &Build) -> Database {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let database = self.named(&format!("bench_{number}"), build);
        let (name, template) = (&database.name, build.template());
        self.postgres
            .execute(&format!("create database {name} template {template}"))
            .await;
        // for the next periods; what comes before them lies in the default partitions
        database
            .execute(
                "select pubsub.make_partitions('messages', 3600), \
                 pubsub.make_partitions('acked', 3600)",
            )
            .await;
        database
    }

    /// Its files are gone, whoever is connected.
    pub(crate) async fn drop(&self, database: Database) {
        self.postgres
            .execute(&format!("drop database {} with (force)", database.name))
            .await;
    }

    /// Off where dead rows are what is measured, or where its work would disturb.
    pub(crate) async fn set_autovacuum(&self, on: bool) {
        self.postgres
            .execute(&format!("alter system set autovacuum = {on}"))
            .await;
        self.postgres.execute("select pg_reload_conf()").await;
        if on {
            return;
        }
        let mut connection = self.postgres.connect().await;
        let busy = "select count(*) from pg_stat_activity where backend_type = 'autovacuum worker'";
        while sqlx::query_scalar::<_, i64>(busy)
            .fetch_one(&mut connection)
            .await
            .unwrap()
            > 0
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        connection.close().await.unwrap();
    }

    fn named(&self, name: &str, build: &Build) -> Database {
        Database {
            program: build.program().to_owned(),
            name: name.to_owned(),
            options: self.postgres.options.clone().database(name),
        }
    }
}

impl Database {
    pub(crate) async fn connect(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        // statements of ours: nothing in them comes from outside
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        self.options.to_url_lossy().to_string()
    }

    /// What a subcommand of the program prints.
    pub(crate) async fn program(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.program)
            .env_clear()
            .args(arguments)
            .args(["--log-level", "warning", "--database-url", &self.url()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "fastpubsub {arguments:?} failed");
        String::from_utf8(output.stdout).unwrap()
    }
}
