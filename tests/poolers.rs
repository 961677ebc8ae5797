//! The service behind a real pgbouncer. The message suites run behind one as well: `make test`.

use std::collections::HashMap;

use fastpubsub::db::database::Database;
use fastpubsub::db::pooler::{Sessions, probe};
use fastpubsub::db::schema::{self, Migrated};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;

use crate::support::database::TestDatabase;
use crate::support::pooler::Pooler;
use crate::support::{TestApp, settings};

const FEW: &str = "default_pool_size = 5";

#[tokio::test]
async fn a_pooler_is_told_from_a_session_of_our_own() {
    let database = TestDatabase::create().await;
    assert_eq!(probe(&database.options()).await.unwrap(), Sessions::Own);

    for (mode, more, expected) in [
        ("session", FEW, Sessions::Own),
        ("transaction", FEW, Sessions::Shared),
        ("transaction", "default_pool_size = 1", Sessions::Shared),
        ("transaction", "default_pool_size = 2", Sessions::Shared),
        (
            "transaction",
            "default_pool_size = 5\nserver_round_robin = 1",
            Sessions::Shared,
        ),
    ] {
        let pooler = Pooler::start(&database, mode, more).await;

        let found = probe(&pooler.options()).await.unwrap();

        assert_eq!(found, expected, "{mode} {more}");
    }
}

/// One of two sessions is taken by the first holder, and the first connection keeps the other one.
#[tokio::test]
async fn a_pooler_is_told_where_it_has_other_sessions_at_hand_and_takes_turns() {
    let database = TestDatabase::create().await;
    for warm in 1..=4 {
        let more = "default_pool_size = 5\nserver_round_robin = 1";
        let pooler = Pooler::start(&database, "transaction", more).await;
        let mut open = Vec::new();
        for _ in 0..warm {
            let mut connection = pooler.options().connect().await.unwrap();
            connection.execute(sqlx::raw_sql("begin")).await.unwrap();
            open.push(connection);
        }
        for mut connection in open {
            connection.execute(sqlx::raw_sql("rollback")).await.unwrap();
        }

        assert_eq!(
            probe(&pooler.options()).await.unwrap(),
            Sessions::Shared,
            "{warm}"
        );
    }
}

/// An address behind which there are several poolers, in turn.
async fn spread(poolers: &[Pooler]) -> (PgConnectOptions, tokio::task::JoinHandle<()>) {
    let sockets: Vec<_> = poolers.iter().map(Pooler::socket).collect();
    let dir = std::env::temp_dir().join(format!("fastpubsub-spread-{}", Uuid::now_v7().simple()));
    std::fs::create_dir(&dir).unwrap();
    let listener = UnixListener::bind(dir.join(".s.PGSQL.6432")).unwrap();
    let proxy = tokio::spawn(async move {
        for socket in sockets.iter().cycle() {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut upstream = UnixStream::connect(socket).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut upstream).await });
        }
    });
    (poolers[0].options().socket(dir), proxy)
}

#[tokio::test]
async fn several_poolers_behind_one_address_are_told() {
    let database = TestDatabase::create().await;
    let mut poolers = Vec::new();
    for _ in 0..3 {
        poolers.push(Pooler::start(&database, "transaction", FEW).await);
    }
    let (options, proxy) = spread(&poolers).await;

    for _ in 0..3 {
        assert_eq!(probe(&options).await.unwrap(), Sessions::Shared);
    }
    proxy.abort();
}

#[tokio::test]
async fn a_pooler_that_was_not_there_at_the_start_is_noticed_at_the_first_foreign_session() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(&database, "transaction", FEW).await;
    let calls = Database::new(&settings(&[]), pooler.options(), Sessions::Own);

    let call = |number: i32| {
        let calls = calls.clone();
        async move {
            let text: (i32, String) = sqlx::query_as("select $1::int, $2::text")
                .bind(number)
                .bind("a")
                .fetch_one(&calls)
                .await
                .unwrap();
            assert_eq!(text, (number, "a".to_owned()));
            let sum: i64 = sqlx::query_scalar("select $1::bigint + 1")
                .bind(i64::from(number))
                .fetch_one(&calls)
                .await
                .unwrap();
            assert_eq!(sum, i64::from(number) + 1);
        }
    };
    futures_util::future::join_all((0..200).map(call)).await;

    assert_eq!(calls.sessions(), Sessions::Shared);
}

#[tokio::test]
async fn what_was_prepared_before_a_pooler_was_noticed_is_forgotten() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(&database, "transaction", "default_pool_size = 1").await;
    let one = ["--database-pool-size", "1", "--database-max-overflow", "0"];
    let calls = Database::new(&settings(&one), pooler.options(), Sessions::Own);
    let call = || async {
        let query = sqlx::query_scalar::<_, i32>("select $1::int").bind(1);
        query.fetch_one(&calls).await.unwrap()
    };
    assert_eq!(call().await, 1);

    let mut other = pooler.options().connect().await.unwrap();
    other
        .execute(sqlx::raw_sql("deallocate all"))
        .await
        .unwrap();

    assert_eq!(call().await, 1);
    assert_eq!(calls.sessions(), Sessions::Shared);
}

/// Its exit code and what it says.
async fn binary(url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fastpubsub"));
    command.args(arguments).env("FASTPUBSUB_DATABASE_URL", url);
    let output = command
        .env("FASTPUBSUB_API_PORT", "0")
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_pooler_in_statement_mode_is_refused_by_the_name_of_its_setting() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(&database, "statement", FEW).await;

    for command in ["server", "db-migrate", "cleanup_stuck_messages"] {
        let (code, said) = binary(&pooler.url(), &[command]).await;

        assert_eq!(code, Some(1), "{command}: {said}");
        assert!(said.contains("pool_mode"), "{command}: {said}");
        assert_eq!(said.lines().count(), 1, "{command}: {said}");
    }
}

#[tokio::test]
async fn every_subcommand_works_through_a_pooler() {
    let database = TestDatabase::create_empty().await;
    let pooler = Pooler::start(&database, "transaction", FEW).await;

    for arguments in [
        &["db-migrate"][..],
        &["create_client", "c"],
        &["cleanup_acked_messages"],
        &["cleanup_stuck_messages"],
    ] {
        let (code, said) = binary(&pooler.url(), arguments).await;

        assert_eq!(code, Some(0), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_schema_is_migrated_through_a_pooler() {
    let database = TestDatabase::create_empty().await;
    let pooler = Pooler::start(&database, "transaction", FEW).await;
    // whose statements have the names that another client's would have
    let mut other = pooler.options().connect().await.unwrap();
    let _: i32 = sqlx::query_scalar("select 1")
        .fetch_one(&mut other)
        .await
        .unwrap();

    for expected in [Migrated::Applied, Migrated::UpToDate] {
        let mut connection = fastpubsub::db::connect(&pooler.options()).await.unwrap();
        assert_eq!(schema::migrate(&mut connection).await.unwrap(), expected);
        schema::check(&mut connection).await.unwrap();
    }
}

/// All settings that another application of the pool could notice.
async fn session(connection: &mut sqlx::PgConnection) -> Vec<(String, String)> {
    let rows = connection
        .fetch_all(sqlx::raw_sql(
            "select name, setting from pg_settings where source = 'session' order by 1",
        ))
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn nothing_is_left_behind_on_the_sessions_of_a_pooler() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(&database, "transaction", "default_pool_size = 1").await;
    let mut other = pooler.options().connect().await.unwrap();
    let before = session(&mut other).await;
    let service = Database::new(&settings(&[]), pooler.options(), Sessions::Shared);
    for call in [
        "select pubsub.create_topic('t')::text",
        "select pubsub.create_subscription('s', 't')::text",
        "select pubsub.publish_messages('t', array['{}'::jsonb])::text",
        "select count(*)::text from pubsub.consume_messages('s', 'c', 10)",
        "select pubsub.no_such_function()::text",
    ] {
        let _called = sqlx::query_scalar::<_, Option<String>>(call)
            .fetch_one(&service)
            .await;
    }

    assert_eq!(session(&mut other).await, before);
    let statements: i64 = other
        .fetch_one(sqlx::raw_sql("select count(*) from pg_prepared_statements"))
        .await
        .unwrap()
        .get(0);
    assert_eq!(statements, 0);
}

/// Publish so many messages and consume them; their receipts.
async fn receipts(app: &TestApp, topic: &str, subscription: &str, count: usize) -> Vec<Value> {
    app.topic_with_subscription(
        topic,
        subscription,
        json!({"backoff_min_seconds": 600, "backoff_max_seconds": 600}),
    )
    .await;
    let messages: Vec<Value> = (0..count).map(|n| json!({ "n": n })).collect();
    app.post(&format!("/topics/{topic}/messages"), json!(messages))
        .await
        .expect(204);
    let mut receipts = Vec::new();
    while receipts.len() < count {
        for message in app.consume(subscription).await {
            receipts.push(message["receipt"].clone());
        }
    }
    receipts
}

#[tokio::test]
async fn acks_and_nacks_of_many_clients_through_a_small_pool_do_what_they_say() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(&database, "transaction", FEW).await;
    let app = TestApp::start_through(database, Some(pooler), &[], |_| {}).await;
    let acked = receipts(&app, "a", "acked", 300).await;
    let nacked = receipts(&app, "n", "nacked", 300).await;

    let calls = (0..16).map(|client| {
        let (app, acked, nacked) = (&app, &acked, &nacked);
        async move {
            for (ack, nack) in acked.iter().zip(nacked).skip(client).step_by(16) {
                let (one, other) = tokio::join!(
                    app.post("/subscriptions/acked/acks", json!([ack])),
                    app.post("/subscriptions/nacked/nacks", json!([nack])),
                );
                one.expect(204);
                other.expect(204);
            }
        }
    });
    futures_util::future::join_all(calls).await;

    let mut counts = HashMap::new();
    for subscription in ["acked", "nacked"] {
        let path = format!("/subscriptions/{subscription}/metrics");
        let metrics = app.get(&path).await.expect(200).json();
        counts.insert(
            subscription,
            (metrics["acked"].clone(), metrics["scheduled"].clone()),
        );
    }
    assert_eq!(counts["acked"], (json!(300), json!(0)));
    assert_eq!(counts["nacked"], (json!(0), json!(300)));
}

#[tokio::test]
async fn calls_share_the_connections_that_a_role_may_have() {
    let database = TestDatabase::create().await;
    let role = format!("limited_{}", uuid::Uuid::now_v7().simple());
    let mut admin = database.plain().await;
    let sql = format!("create role {role} superuser login; alter role {role} connection limit 6");
    // superusers have no limit
    let sql = sql.replace(" superuser", "")
        + &format!(
            "; grant usage on schema pubsub to {role}; \
             grant execute on all routines in schema pubsub to {role}; \
             grant usage on schema pubsub_data to {role}; \
             grant all on all tables in schema pubsub_data to {role}; \
             grant all on all sequences in schema pubsub_data to {role}"
        );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .unwrap();
    let options = database.options().username(&role);
    let service = Database::new(&settings(&[]), options, Sessions::Own);

    let calls = (0..40).map(|_| async {
        for _ in 0..5 {
            sqlx::query("select pg_sleep(0.02)")
                .execute(&service)
                .await?;
        }
        Ok::<_, sqlx::Error>(())
    });
    let ended = futures_util::future::join_all(calls).await;
    service.close().await;

    let failed: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
    let mut drop = database.plain().await;
    let sql = format!("drop owned by {role}; drop role {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut drop)
        .await
        .unwrap();
    drop.close().await.unwrap();
}

#[tokio::test]
async fn a_call_that_lost_a_deadlock_is_made_again() {
    let database = TestDatabase::create().await;
    let mut admin = database.plain().await;
    admin
        .execute(sqlx::raw_sql(
            "create table public.locked (n int primary key, times int not null default 0); \
             insert into public.locked values (1), (2); \
             create function public.lock_both(one int, two int) returns void language plpgsql as $$ \
             begin \
             update public.locked set times = times + 1 where n = one; \
             perform pg_sleep(0.1); \
             update public.locked set times = times + 1 where n = two; \
             end $$",
        ))
        .await
        .unwrap();
    let service = database.pool();

    let one = sqlx::query("select public.lock_both(1, 2)").execute(&service);
    let other = sqlx::query("select public.lock_both(2, 1)").execute(&service);
    let (one, other) = tokio::join!(one, other);

    one.unwrap();
    other.unwrap();
    let times: Vec<i32> = sqlx::query_scalar("select times from public.locked")
        .fetch_all(&service)
        .await
        .unwrap();
    assert_eq!(times, [2, 2]);
}

#[tokio::test]
async fn the_isolation_of_the_functions_is_that_of_every_session() {
    let database = TestDatabase::create().await;
    let mut admin = database.plain().await;
    let name = database.options().get_database().unwrap().to_owned();
    let sql = format!(
        "alter database {name} set default_transaction_isolation = 'serializable'; \
         alter database {name} set lock_timeout = '1ms'; \
         alter database {name} set statement_timeout = '1ms'"
    );
    admin
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)))
        .await
        .unwrap();
    let pooler = Pooler::start(&database, "transaction", FEW).await;

    for (options, sessions) in [
        (database.options(), Sessions::Own),
        (pooler.options(), Sessions::Shared),
    ] {
        let service = Database::new(&settings(&[]), options, sessions);
        let (isolation, timeout): (String, String) = sqlx::query_as(
            "select current_setting('transaction_isolation'), current_setting('lock_timeout') \
             from pg_sleep(0.05)",
        )
        .fetch_one(&service)
        .await
        .unwrap();
        assert_eq!(isolation, "read committed", "{sessions:?}");
        assert_eq!(timeout, "0", "{sessions:?}");
        service.close().await;
    }
}
