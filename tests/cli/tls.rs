//! TLS to the database, against a real Postgres with ssl = on and certificates made by openssl.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use fastpubsub::postgres::Embedded;
use nix::unistd::{Uid, User};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions};

use super::{Sandbox, make_directory};

const LEAF: &str = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n";
const AUTHORITY: &str = "subjectAltName=DNS:localhost\nbasicConstraints=CA:TRUE\n";

/// A Postgres that takes TCP connections, and the certificates beside it.
struct Secured {
    sandbox: Sandbox,
    certificates: PathBuf,
    admin: PgConnection,
    port: u16,
    password: String,
}

impl Secured {
    async fn start() -> Self {
        let sandbox = Sandbox::new();
        // longer than a socket's path may be: then Postgres listens on a port
        let data_dir = sandbox.dir.join("d".repeat(110));
        let sandbox = sandbox.with_data_dir(data_dir.clone());
        let bin = std::env::var_os("FASTPUBSUB_PG_BIN").map(PathBuf::from);
        let embedded = Embedded::start(&data_dir, bin.as_deref(), false).await;
        let options = embedded.unwrap().options().unwrap();
        let certificates = sandbox.dir.join("certificates");
        make_directory(&certificates, 0o755);
        make_certificates(&certificates).await;
        let hba = data_dir.join("pg/pg_hba.conf");
        let rules = fs::read_to_string(&hba).unwrap();
        // what is not encrypted is refused, so that what works is
        let rules = format!(
            "local all all trust\nhostnossl all all all reject\n\
             hostssl all certified all scram-sha-256 clientcert=verify-ca\n{rules}"
        );
        fs::write(&hba, rules).unwrap();
        let mut secured = Self {
            password: fs::read_to_string(data_dir.join("password")).unwrap(),
            port: options.get_port(),
            admin: options.connect().await.unwrap(),
            certificates,
            sandbox,
        };
        let role = format!(
            "create role certified superuser login password '{}'",
            secured.password
        );
        secured.execute(&role).await;
        secured.execute("alter system set ssl = on").await;
        for (setting, file) in [("ssl_ca_file", "ca.pem"), ("ssl_key_file", "server.key")] {
            let file = secured.file(file);
            let set = format!("alter system set {setting} = '{file}'");
            secured.execute(&set).await;
        }
        secured.present("server.pem").await;
        secured
    }

    async fn execute(&mut self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut self.admin)
            .await
            .unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.certificates.join(name).display().to_string()
    }

    /// Let the server show this certificate.
    async fn present(&mut self, name: &str) {
        let set = format!("alter system set ssl_cert_file = '{}'", self.file(name));
        self.execute(&set).await;
        self.execute("select pg_reload_conf()").await;
        let deadline = std::time::Instant::now() + super::PATIENCE;
        loop {
            let shown: String = sqlx::query_scalar("show ssl_cert_file")
                .fetch_one(&mut self.admin)
                .await
                .unwrap();
            if shown.ends_with(&format!("/{name}")) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{shown}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Migrate over an address with these parameters; the error, if there is one.
    async fn refuses(&self, address: &str, variables: &[(&str, String)]) -> Option<String> {
        let url = format!(
            "postgresql://{}:{}@{address}",
            if address.contains("sslkey") || address.contains("certified") {
                "certified"
            } else {
                "postgres"
            },
            self.password
        )
        .replace("PORT", &self.port.to_string())
        .replace("DIR", self.certificates.to_str().unwrap());
        let mut command = self.sandbox.command(&["db-migrate"]);
        command.env("FASTPUBSUB_DATABASE_URL", url);
        command.envs(variables.iter().cloned());
        let ran = super::run(command).await;
        if ran.code == Some(0) {
            return None;
        }
        let code = ran.code.unwrap();
        let line = ran.fails(code);
        assert!(!line.contains(&self.password), "{line}");
        Some(line)
    }
}

async fn openssl(dir: &Path, arguments: &str) {
    let output = tokio::process::Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .await
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {error}");
}

async fn make_certificates(dir: &Path) {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    fs::write(dir.join("leaf.ext"), LEAF).unwrap();
    fs::write(dir.join("authority.ext"), AUTHORITY).unwrap();
    for name in ["ca", "other"] {
        let made =
            format!("req -x509 {KEY} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}");
        openssl(dir, &made).await;
    }
    let request = format!("req {KEY} -keyout server.key -out server.csr -subj /CN=of-a-test");
    openssl(dir, &request).await;
    let by_ca = "-CA ca.pem -CAkey ca.key -CAcreateserial -extfile leaf.ext";
    for (name, signed) in [
        ("server", format!("-days 2 {by_ca}")),
        ("expired", format!("-days -1 {by_ca}")),
        (
            "self",
            "-days 2 -signkey server.key -extfile leaf.ext".to_owned(),
        ),
        (
            "selfca",
            "-days 2 -signkey server.key -extfile authority.ext".to_owned(),
        ),
    ] {
        openssl(
            dir,
            &format!("x509 -req -in server.csr {signed} -out {name}.pem"),
        )
        .await;
    }
    openssl(
        dir,
        "pkcs8 -topk8 -in server.key -passout pass:x -out locked.key",
    )
    .await;
    openssl(dir, "x509 -in ca.pem -outform der -out ca.der").await;
    // Postgres refuses a key of somebody else; a client may be anybody
    fs::copy(dir.join("server.key"), dir.join("client.key")).unwrap();
    if Uid::effective().is_root() {
        let owner = User::from_name("postgres").unwrap().unwrap();
        chown(
            dir.join("server.key"),
            Some(owner.uid.as_raw()),
            Some(owner.gid.as_raw()),
        )
        .unwrap();
    }
}

#[tokio::test]
async fn tls_to_the_database_is_what_sslmode_and_the_certificates_say() {
    let mut secured = Secured::start().await;

    for (certificate, address, expected) in [
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=disable",
            "no encryption",
        ),
        ("server.pem", "localhost:PORT/fastpubsub?sslmode=allow", ""),
        ("server.pem", "localhost:PORT/fastpubsub?sslmode=prefer", ""),
        ("server.pem", "localhost:PORT/fastpubsub", ""),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=require",
            "",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-ca",
            "sslrootcert=FILE",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full",
            "sslrootcert=FILE",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-ca&sslrootcert=DIR/ca.pem",
            "",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full&sslrootcert=DIR/ca.pem",
            "",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=require&sslrootcert=DIR/ca.pem",
            "",
        ),
        // as libpq: who names a file of roots wants them to count
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=require&sslrootcert=DIR/other.pem",
            "sslrootcert=FILE",
        ),
        (
            "server.pem",
            "127.0.0.1:PORT/fastpubsub?sslmode=verify-full&sslrootcert=DIR/ca.pem",
            "subjectAltName",
        ),
        (
            "server.pem",
            "127.0.0.1:PORT/fastpubsub?sslmode=verify-ca&sslrootcert=DIR/ca.pem",
            "",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslrootcert=system",
            "sslrootcert=FILE",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=require&sslrootcert=system",
            "verify-full",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full&sslrootcert=DIR/none.pem",
            "none.pem",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full&sslrootcert=DIR/ca.der",
            "ca.der",
        ),
        (
            "expired.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full&sslrootcert=DIR/ca.pem",
            "renew",
        ),
        (
            "self.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full",
            "sslrootcert=FILE",
        ),
        (
            "self.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full&sslrootcert=DIR/self.pem",
            "",
        ),
        (
            "selfca.pem",
            "localhost:PORT/fastpubsub?sslmode=verify-full&sslrootcert=DIR/selfca.pem",
            "CA:FALSE",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslcert=DIR/server.pem&sslkey=DIR/client.key",
            "",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?application_name=certified",
            "sslcert",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslcert=DIR/server.pem&sslkey=DIR/locked.key",
            "passphrase",
        ),
        (
            "server.pem",
            "localhost:PORT/fastpubsub?sslcert=DIR/server.pem&sslkey=DIR/none.key",
            "none.key",
        ),
    ] {
        secured.present(certificate).await;

        let error = secured.refuses(address, &[]).await;

        match error {
            None => assert_eq!(expected, "", "{certificate} {address} worked"),
            Some(line) => assert!(
                !expected.is_empty() && line.contains(expected),
                "{certificate} {address}: {line}"
            ),
        }
    }
}

#[tokio::test]
async fn the_roots_of_the_system_and_of_variables_count() {
    let secured = Secured::start().await;
    let (ca, none) = (secured.file("ca.pem"), secured.file("none.pem"));
    let address = "localhost:PORT/fastpubsub?sslmode=verify-full";

    for (variables, expected) in [
        // what stands for a company's authority in the bundle of the system
        (vec![("SSL_CERT_FILE", ca.clone())], None),
        (vec![("PGSSLROOTCERT", ca.clone())], None),
        (vec![("SSL_CERT_FILE", none.clone())], Some("SSL_CERT_FILE")),
        (vec![("PGSSLROOTCERT", none)], Some("none.pem")),
    ] {
        let error = secured.refuses(address, &variables).await;

        match (error, expected) {
            (None, None) => {}
            (Some(line), Some(expected)) => assert!(line.contains(expected), "{line}"),
            (error, expected) => panic!("{variables:?}: {error:?}, not {expected:?}"),
        }
    }
    let mode = vec![
        ("PGSSLMODE", "verify-full".to_owned()),
        ("PGSSLROOTCERT", secured.file("other.pem")),
    ];
    let line = secured.refuses("localhost:PORT/fastpubsub", &mode).await;
    assert!(line.unwrap().contains("sslrootcert=FILE"));
    let wrong = vec![("PGSSLMODE", "verify".to_owned())];
    let line = secured.refuses("localhost:PORT/fastpubsub", &wrong).await;
    assert!(line.unwrap().contains("PGSSLMODE"));
}

#[tokio::test]
async fn a_server_without_tls_is_refused_by_modes_that_ask_for_it() {
    let mut secured = Secured::start().await;
    secured.execute("alter system set ssl = off").await;
    secured.execute("select pg_reload_conf()").await;

    let mut line = None;
    for _ in 0..100 {
        line = secured
            .refuses("localhost:PORT/fastpubsub?sslmode=require", &[])
            .await;
        if line.is_some() {
            break;
        }
    }

    let line = line.unwrap();
    assert!(
        line.contains("ssl = on") && line.contains("localhost"),
        "{line}"
    );
}
