//! Why there may be no private Postgres: one clear line each.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use nix::unistd::Uid;

use super::{Sandbox, make_directory};

const SERVER: &[&str] = &["server", "--api-port", "0"];

#[tokio::test]
async fn a_pg_bin_without_postgres_is_one_line() {
    let sandbox = Sandbox::new();
    let empty = sandbox.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    let sandbox = sandbox.with("FASTPUBSUB_PG_BIN", empty.to_str().unwrap());

    for command in [SERVER, &["db-migrate"]] {
        let line = sandbox.run(command).await.fails(1);

        let expected = format!(
            "FASTPUBSUB_PG_BIN: no initdb and postgres in {}",
            empty.display()
        );
        assert_eq!(line, expected);
    }
}

#[tokio::test]
async fn a_postgres_that_is_not_installed_is_one_line_that_says_what_to_do() {
    // data of a version that nobody has
    let sandbox = Sandbox::new()
        .without("FASTPUBSUB_PG_BIN")
        .with("PATH", "/nonexistent");
    let cluster = sandbox.data_dir.join("pg");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("PG_VERSION"), "99\n").unwrap();

    let line = sandbox.run(SERVER).await.fails(1);

    assert!(
        line.starts_with("PostgreSQL 99 is not installed: "),
        "{line}"
    );
    for way_out in [
        "apt-get install",
        "FASTPUBSUB_PG_BIN",
        "FASTPUBSUB_DATABASE_URL",
    ] {
        assert!(line.contains(way_out), "{line}");
    }
}

/// As in the image: nothing is installed, and there is no place to write to.
#[tokio::test]
async fn without_a_postgres_the_address_of_one_is_asked_for_before_a_directory_is_made() {
    if !Uid::effective().is_root() {
        eprintln!("not run: hiding a directory needs root");
        return;
    }
    let sandbox = Sandbox::new()
        .without("FASTPUBSUB_PG_BIN")
        .without("PATH")
        .with("PATH", "/usr/bin:/bin");
    const HIDE: &str = "mount -t tmpfs none /usr/lib/postgresql && exec \"$@\"";
    for command in [SERVER, &["db-migrate"]] {
        let mut hidden = tokio::process::Command::new("unshare");
        hidden
            .args(["--mount", "sh", "-c", HIDE, "sh", super::BINARY])
            .args(command)
            .env_clear()
            .envs(sandbox.environment.iter().cloned())
            .current_dir(&sandbox.dir);

        let line = super::run(hidden).await.fails(1);

        assert!(
            line.starts_with("set FASTPUBSUB_DATABASE_URL to postgresql://"),
            "{line}"
        );
        assert!(!sandbox.dir.join("data").exists());
    }
}

#[tokio::test]
async fn data_of_another_version_than_the_postgres_on_the_path_is_one_line() {
    let sandbox = Sandbox::new();
    // any directory of programs; these do not run
    let bin = sandbox.dir.join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["initdb", "postgres"] {
        let program = bin.join(program);
        fs::write(
            &program,
            "#!/bin/sh\necho FATAL: not this version >&2\nexit 1\n",
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let sandbox = sandbox.with("FASTPUBSUB_PG_BIN", bin.to_str().unwrap());
    let cluster = sandbox.data_dir.join("pg");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("PG_VERSION"), "99\n").unwrap();

    let line = sandbox.run(SERVER).await.fails(1);

    assert!(
        line.starts_with("the private Postgres ended with "),
        "{line}"
    );
    assert!(line.contains("FATAL: not this version"), "{line}");
}

#[tokio::test]
async fn a_directory_that_holds_something_else_is_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    make_directory(&sandbox.data_dir, 0o755);
    let file = sandbox.data_dir.join("thesis.txt");
    fs::write(&file, "mine").unwrap();

    let line = sandbox.run(SERVER).await.fails(1);

    let expected = format!(
        "FASTPUBSUB_DATA_DIR is {}, which holds something else: choose an empty directory",
        sandbox.data_dir.display()
    );
    assert_eq!(line, expected);
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    assert_eq!(fs::read_dir(&sandbox.data_dir).unwrap().count(), 1);
    let mode = fs::metadata(&sandbox.data_dir)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[tokio::test]
async fn a_directory_that_is_a_file_is_one_line() {
    let sandbox = Sandbox::new();
    fs::write(&sandbox.data_dir, "").unwrap();

    let line = sandbox.run(SERVER).await.fails(1);

    assert!(
        line.starts_with("cannot create FASTPUBSUB_DATA_DIR "),
        "{line}"
    );
}

#[tokio::test]
async fn a_directory_that_the_user_of_postgres_cannot_reach_is_one_line() {
    // only root runs Postgres as another user
    if !Uid::effective().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let parent = sandbox.dir.join("private");
    make_directory(&parent, 0o700);
    chown(&parent, Some(0), Some(0)).unwrap();
    let sandbox = sandbox.with_data_dir(parent.join("data"));

    let line = sandbox.run(SERVER).await.fails(1);

    let expected = format!(
        "may not enter {}: choose a directory elsewhere",
        parent.display()
    );
    assert!(line.contains(&expected), "{line}");
    assert!(line.starts_with("FASTPUBSUB_DATA_DIR is "), "{line}");
}

#[tokio::test]
async fn a_directory_several_levels_below_the_working_directory_is_made() {
    let sandbox = Sandbox::new();
    let data_dir = sandbox.dir.join("a/b/c");
    let sandbox = sandbox.with_data_dir(data_dir);

    let ran = sandbox.run(&["db-migrate"]).await;

    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "schema=migrated\n"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_taken_port_is_told_before_a_postgres_is_made() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let flags = ["server", "--api-host", "127.0.0.1", "--api-port", &port];
    let line = sandbox.run(&flags).await.fails(1);

    assert!(line.starts_with("cannot listen on "), "{line}");
    assert!(!sandbox.data_dir.exists());
}
