//! A pgbouncer of one test, between the service and the private Postgres.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::database::TestDatabase;

/// Any; the socket is in a folder of its own.
const PORT: u16 = 6432;

/// A running pgbouncer. It ends with the test.
pub struct Pooler {
    dir: PathBuf,
    child: Child,
    options: PgConnectOptions,
}

impl Pooler {
    /// In a pool mode, with further lines of its configuration.
    pub async fn start(database: &TestDatabase, mode: &str, more: &str) -> Self {
        let name = format!("fastpubsub-pooler-{}", Uuid::now_v7().simple());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let upstream = database.options();
        let socket = upstream.get_socket().unwrap().display();
        let (port, user) = (upstream.get_port(), upstream.get_username());
        // one login that Postgres refused would keep everybody out for 15 s
        let config = format!(
            "[databases]\n* = host={socket} port={port} user={user}\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {dir}\n\
             auth_type = any\npool_mode = {mode}\nmax_client_conn = 1000\n\
             server_login_retry = 1\n{more}\n",
            dir = dir.display()
        );
        let file = dir.join("pgbouncer.ini");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(binary());
        // it refuses to run as root
        if Uid::effective().is_root() {
            let user = User::from_name("postgres").unwrap().unwrap();
            chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            command.args(["-u", "postgres"]);
        }
        let child = command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer, which make setup installs");
        let options = upstream.clone().socket(&dir).port(PORT);
        // as those of the service
        let options = options.extra_float_digits(None);
        let pooler = Self {
            dir,
            child,
            options,
        };
        pooler.wait().await;
        pooler
    }

    /// How to reach the test's database through it.
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{PORT}"))
    }

    /// The same as a URL for the binary.
    pub fn url(&self) -> String {
        let database = self.options.get_database().unwrap();
        let (dir, user) = (self.dir.display(), self.options.get_username());
        format!("postgresql://{user}@localhost:{PORT}/{database}?host={dir}")
    }

    async fn wait(&self) {
        let socket = self.socket();
        for _ in 0..500 {
            // it is there a moment before anybody listens
            if UnixStream::connect(&socket).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("pgbouncer does not start");
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        // SIGTERM: at once
        let _ended = kill(pid, Signal::SIGTERM);
        let _status = self.child.wait();
        let _removed = fs::remove_dir_all(&self.dir);
    }
}

/// Debian keeps it where only root looks.
fn binary() -> PathBuf {
    let of_debian = PathBuf::from("/usr/sbin/pgbouncer");
    if of_debian.exists() {
        of_debian
    } else {
        PathBuf::from("pgbouncer")
    }
}
