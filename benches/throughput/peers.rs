//! pgmq, another queue in Postgres, to compare with. Nothing of it is in this repository: cargo fetches the
//! crate that ships its SQL, when a row needs it, from wherever cargo is told to fetch crates from.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::cluster::Database;

/// Of the crate `pgmq` (licence PostgreSQL): the newest one, which has pgmq 1.13.0.
const CRATE_VERSION: &str = "0.34.0-alpha.7";
/// Where the crate has what a new database needs, without an extension.
const SQL: &str = "src/install/embedded/sql/pgmq.sql";
/// Says which version that is.
const CONTROL: &str = "src/install/embedded/pgmq.control";
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// The SQL of pgmq.
pub(crate) struct Pgmq {
    sql: String,
    version: String,
}

impl Pgmq {
    pub(crate) async fn install(&self, database: &Database) {
        database.execute(&self.sql).await;
    }
}

/// pgmq, once it was asked for.
#[derive(Default)]
pub(crate) struct Peer(OnceCell<Result<Pgmq, String>>);

impl Peer {
    /// None when it cannot be had, which is said once.
    pub(crate) async fn pgmq(&self, directory: &Path) -> Option<&Pgmq> {
        let fetched = self.0.get_or_init(|| async {
            let fetched = fetch(&directory.join("peers")).await;
            if let Err(error) = &fetched {
                eprintln!("         pgmq: {}", left_out(error));
            }
            fetched
        });
        fetched.await.as_ref().ok()
    }

    /// Of a run: the version, or why there is none.
    pub(crate) fn fact(&self) -> Option<(&'static str, String)> {
        let text = match self.0.get()? {
            Ok(pgmq) => format!("{}, of its crate {CRATE_VERSION}", pgmq.version),
            Err(error) => left_out(error),
        };
        Some(("pgmq", text))
    }
}

fn left_out(error: &str) -> String {
    format!("its rows are left out, it could not be fetched: {error}")
}

/// A package that depends on the crate is enough to have it downloaded; nothing is built.
async fn fetch(package: &Path) -> Result<Pgmq, String> {
    let manifest = package.join("Cargo.toml");
    std::fs::create_dir_all(package).unwrap();
    std::fs::write(
        &manifest,
        format!(
            "[package]\nname = \"peers\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [lib]\npath = \"none.rs\"\n[workspace]\n\
             [dependencies]\npgmq = {{ version = \"={CRATE_VERSION}\", default-features = false }}\n"
        ),
    )
    .unwrap();
    let source = source_of_pgmq(&manifest).await?;
    let read = |file: &str| {
        std::fs::read_to_string(source.join(file)).map_err(|error| format!("{file}: {error}"))
    };
    let control = read(CONTROL)?;
    let version = control
        .lines()
        .find_map(|line| line.strip_prefix("default_version = '")?.strip_suffix('\''));
    Ok(Pgmq {
        sql: read(SQL)?,
        version: version.unwrap_or("unknown version").to_owned(),
    })
}

/// The folder of the crate's files.
async fn source_of_pgmq(manifest: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = Command::new(cargo)
        .args(["metadata", "--quiet", "--format-version", "1"])
        .arg("--manifest-path")
        .arg(manifest)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(FETCH_LIMIT, metadata)
        .await
        .map_err(|_| format!("no answer in {} s", FETCH_LIMIT.as_secs()))?
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let error = error.lines().next().unwrap_or("cargo failed");
        return Err(error.trim_start_matches("error: ").to_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let pgmq = packages.iter().find(|package| package["name"] == "pgmq");
    let manifest = pgmq.unwrap()["manifest_path"].as_str().unwrap();
    Ok(Path::new(manifest).parent().unwrap().to_owned())
}
