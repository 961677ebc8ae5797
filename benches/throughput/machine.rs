//! On what was measured.

use std::fs::read_to_string;
use std::process::Command;

use crate::cluster::Bench;

/// Versions, machine and date.
pub(crate) async fn facts(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut connection = bench.cluster.postgres.connect().await;
    let postgres: String = sqlx::query_scalar(
        "select current_setting('server_version') || ', fsync ' || current_setting('fsync') \
         || ', synchronous_commit ' || current_setting('synchronous_commit') \
         || ', shared_buffers ' || current_setting('shared_buffers')",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    let flags = &bench.flags;
    vec![
        ("date", chrono::Utc::now().format("%F %R UTC").to_string()),
        (
            "fastpubsub",
            format!(
                "{} {}",
                env!("CARGO_PKG_VERSION"),
                first_line_of("git", &["describe", "--always", "--dirty"])
            ),
        ),
        ("Rust", first_line_of("rustc", &["--version"])),
        ("PostgreSQL", postgres),
        ("machine", machine()),
        (
            "run",
            format!(
                "{} rounds of {} s, {} connections a server{}",
                flags.rounds,
                flags.round().as_secs_f64(),
                flags.pool_size,
                if flags.quick { ", quick" } else { "" }
            ),
        ),
    ]
}

fn machine() -> String {
    let value = |file: &str, key: &str| {
        let text = read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let value = line.and_then(|line| line.split_once([':', '=']));
        value.map_or_else(String::new, |(_, value)| {
            value.trim().trim_matches('"').to_owned()
        })
    };
    let memory = value("/proc/meminfo", "MemTotal");
    let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    format!(
        "{} cores ({}), {:.0} GiB, {}, Linux {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        value("/proc/cpuinfo", "model name"),
        kib / 1024.0 / 1024.0,
        value("/etc/os-release", "PRETTY_NAME"),
        read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
    )
}

/// What a program says of itself, nothing if it is not there.
fn first_line_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().to_owned()
}
