//! The binary as a black box: clean environment, a working directory of its own, free ports.

mod cleanup;
mod commands;
mod costs;
mod crashes;
mod drop_in;
mod embedded;
mod embedded_faults;
mod first_start;
mod idle;
mod logs;
mod maintenance;
mod secrets;
mod serving;
mod settings;
mod shutdown;
mod signals;
mod sources;
mod streams;
mod tls;
mod used;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{Answer, answer};

const BINARY: &str = env!("CARGO_BIN_EXE_fastpubsub");
/// For what has no limit of its own; the first start creates a Postgres.
const PATIENCE: Duration = Duration::from_secs(60);
/// The subcommand that uses every setting. See `Sandbox::without_postgres`.
const PROBE: &str = "server";
/// Part of bad values, and of no error.
const HIDDEN: &str = "hunter2";
/// Signs tokens.
const KEY: &str = "the-key-of-these-tests-0123456789abcdef";

/// A working directory and an environment for the binary. Its end stops the Postgres that was
/// started in it and, if the test passed, removes the directory.
struct Sandbox {
    dir: PathBuf,
    data_dir: PathBuf,
    environment: Vec<(String, String)>,
}

impl Sandbox {
    /// Without a database: the binary runs its own Postgres.
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("fastpubsub-cli-{}", Uuid::now_v7().simple()));
        make_directory(&dir, 0o755);
        let passed_on = ["PATH", "FASTPUBSUB_PG_BIN"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        Self {
            data_dir: dir.join("data"),
            environment: passed_on.collect(),
            dir,
        }
    }

    /// With a database.
    fn over(url: &str) -> Self {
        Self::new().with("FASTPUBSUB_DATABASE_URL", url)
    }

    /// With one more variable, or another value of it.
    fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a variable.
    fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Without a database of any kind: a server ends with code 1 once its settings are checked.
    fn without_postgres() -> Self {
        Self::new()
            .with("FASTPUBSUB_PG_BIN", "/nonexistent")
            .with("FASTPUBSUB_API_HOST", "127.0.0.1")
            .with("FASTPUBSUB_API_PORT", "0")
    }

    /// With authentication.
    fn with_auth(self) -> Self {
        self.with("FASTPUBSUB_AUTH_ENABLED", "true")
            .with("FASTPUBSUB_AUTH_SECRET_KEY", KEY)
    }

    /// With the private Postgres elsewhere.
    fn with_data_dir(mut self, dir: PathBuf) -> Self {
        self = self.with("FASTPUBSUB_DATA_DIR", dir.to_str().unwrap());
        self.data_dir = dir;
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Run it to its end.
    async fn run(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments)).await
    }

    /// Start a server on a free port.
    fn spawn(&self, flags: &[&str]) -> Server<'_> {
        let mut command = self.command(&["server", "--api-host", "127.0.0.1", "--api-port", "0"]);
        command.args(flags);
        self.start(command)
    }

    fn start(&self, mut command: Command) -> Server<'_> {
        let log = self.dir.join(format!("server-{}.log", Uuid::now_v7()));
        let file = File::create(&log).unwrap();
        command.stderr(file).stdout(Stdio::null());
        Server {
            _sandbox: self,
            child: command.into_std().spawn().unwrap(),
            log,
            url: String::new(),
        }
    }

    /// Start a server and wait until it listens.
    async fn serve(&self, flags: &[&str]) -> Server<'_> {
        self.listening(self.spawn(flags)).await
    }

    /// Start a server behind a command of the shell, and wait until it listens.
    async fn serve_after(&self, shell: &str) -> Server<'_> {
        let mut command = Command::new("sh");
        let server = format!("{shell}; exec {BINARY} server --api-host 127.0.0.1 --api-port 0");
        command
            .args(["-c", &server])
            .env_clear()
            .envs(self.environment.iter().cloned())
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        self.listening(self.start(command)).await
    }

    async fn listening<'a>(&'a self, mut server: Server<'a>) -> Server<'a> {
        let text = server.logged("listening on http://").await;
        let address = text.split("listening on http://").nth(1).unwrap();
        let end = address.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
        server.url = format!("http://{}", &address[..end.unwrap()]);
        server
    }

    /// The pid of the private Postgres, if it runs.
    fn postgres(&self) -> Option<Pid> {
        postgres_of(&self.data_dir)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // an immediate shutdown for a postmaster, which takes its children along
        for pid in processes_on(&self.data_dir) {
            let _gone = kill(pid, Signal::SIGQUIT);
        }
        wait_until(|| processes_on(&self.data_dir).is_empty());
        if std::thread::panicking() {
            eprintln!("kept: {}", self.dir.display());
        } else {
            // children of initdb may still be writing
            wait_until(|| fs::remove_dir_all(&self.dir).is_ok());
        }
    }
}

/// Wait a while where nothing can be awaited.
fn wait_until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes with this path in an argument: a postmaster, initdb.
fn processes_on(path: &Path) -> Vec<Pid> {
    let path = path.to_str().unwrap();
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let arguments = fs::read(entry.path().join("cmdline"));
        // a process may end in between
        if let (Some(pid), Ok(arguments)) = (pid, arguments)
            && String::from_utf8_lossy(&arguments).contains(path)
        {
            pids.push(Pid::from_raw(pid));
        }
    }
    pids
}

/// The pid of the postmaster of a data directory, if that is what lives under it.
fn postgres_of(data_dir: &Path) -> Option<Pid> {
    let cluster = data_dir.join("pg");
    let file = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let pid: i32 = file.lines().next()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    String::from_utf8_lossy(&command)
        .contains(cluster.to_str()?)
        .then_some(Pid::from_raw(pid))
}

fn make_directory(dir: &Path, mode: u32) {
    fs::create_dir_all(dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
}

async fn run(mut command: Command) -> Ran {
    let started = Instant::now();
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("the command ends")
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        took: started.elapsed(),
    }
}

/// How a command ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Ran {
    /// What it printed; fail unless it succeeded without a word on stderr.
    #[track_caller]
    fn quietly(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// Its one line of error; fail unless it failed with this code and said nothing else.
    #[track_caller]
    fn fails(self, code: i32) -> String {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (Some(code), ""),
            "{self:?}"
        );
        let line = self.stderr.strip_suffix('\n').unwrap_or(&self.stderr);
        assert_eq!(line.lines().count(), 1, "{self:?}");
        let line = line.strip_prefix("error: ");
        line.unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

/// A server. Its end kills it, and comes before that of its sandbox.
struct Server<'a> {
    _sandbox: &'a Sandbox,
    child: Child,
    log: PathBuf,
    url: String,
}

impl Server<'_> {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Wait for a text in the log; returns the log.
    async fn logged(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            // whole lines only
            if log.rfind('\n').is_some_and(|end| log[..end].contains(text)) {
                return log;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended without {text:?}: {log}");
            assert!(Instant::now() < deadline, "no {text:?} in: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// Wait for its end; returns the exit code, none after a signal.
    async fn exits_within(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still runs: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stop it as an orchestrator does; returns its log.
    async fn stop(mut self) -> String {
        self.signal(Signal::SIGTERM);
        let code = self.exits_within(PATIENCE).await;
        assert_eq!(code, Some(0), "{}", self.log());
        self.log()
    }

    /// A request to shape by hand.
    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        reqwest::Client::new()
            .request(method, format!("{}{path}", self.url))
            .timeout(PATIENCE)
    }

    async fn get(&self, path: &str) -> Answer {
        answer(self.request("GET", path)).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request("POST", path).json(&body)).await
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // it may have ended already
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
