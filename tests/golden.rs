//! The review surface: what the code says about itself, compared with the files of `tests/golden`.
//! `BLESS=1` rewrites them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, FromArgMatches};
use fastpubsub::config::Settings;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::support::TestApp;
use crate::support::database::TestDatabase;

/// Most lines of a difference that are shown.
const SHOWN_LINES: usize = 8;

/// Routines: name, arguments, result, volatility, comment.
const FUNCTIONS: &str = "
    select format(e'%s(%s)\\n    returns %s\\n    %s\\n    %s\\n', p.proname,
        pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
        case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
        obj_description(p.oid, 'pg_proc'))
    from pg_proc p
    where p.pronamespace = 'pubsub'::regnamespace
    order by p.proname, pg_get_function_arguments(p.oid)";

/// Tables, sequences and views: a line for each, its columns, constraints and indexes.
const TABLES: &str = "
    with objects as (
        select c.oid, c.relkind, c.relispartition, format('%s.%s', n.nspname, c.relname) as name,
            c.reloptions, c.relpartbound
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('pubsub', 'pubsub_data')
            and c.relkind in ('r', 'p', 'v', 'S')
            and c.relname not like 'refinery%'
            -- identity columns own theirs
            and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'i'
                and c.relkind = 'S')
    )
    select l.line
    from (
        select o.name, 0 as part, 0::bigint as position,
            case o.relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end
                || o.name
                || coalesce(' partition by ' || pg_get_partkeydef(o.oid), '')
                || coalesce(' partition of ' || i.inhparent::regclass || ' '
                    || pg_get_expr(o.relpartbound, o.oid), '')
                || coalesce(' with (' || array_to_string(o.reloptions, ', ') || ')', '')
                || coalesce(' start ' || s.seqstart || ' minimum ' || s.seqmin || ' cache '
                    || s.seqcache, '') as line
        from objects o
        left join pg_inherits i on i.inhrelid = o.oid
        left join pg_sequence s on s.seqrelid = o.oid
        union all
        select o.name, 1, a.attnum, '    ' || a.attname || ' '
            || format_type(a.atttypid, a.atttypmod)
            || coalesce(' collate ' || quote_ident(c.collname), '')
            || case when a.attnotnull then ' not null' else '' end
            || case a.attidentity when 'a' then ' generated always as identity' else '' end
            || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
        from objects o
        join pg_attribute a on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
        join pg_type t on t.oid = a.atttypid
        left join pg_collation c on c.oid = a.attcollation and a.attcollation <> t.typcollation
        left join pg_attrdef d on d.adrelid = o.oid and d.adnum = a.attnum
        where o.relkind in ('r', 'p', 'v') and not o.relispartition
        union all
        -- since Postgres 18 not null is a constraint too
        select o.name, 2, row_number() over (partition by o.oid order by k.contype <> 'p', k.conname),
            format('    constraint %s %s', k.conname, pg_get_constraintdef(k.oid))
        from objects o
        join pg_constraint k on k.conrelid = o.oid and k.contype <> 'n'
        where not o.relispartition
        union all
        select o.name, 3, row_number() over (partition by o.oid order by i.indexrelid::regclass::text),
            '    index ' || pg_get_indexdef(i.indexrelid)
        from objects o
        join pg_index i on i.indrelid = o.oid
        where not exists (select from pg_constraint k where k.conindid = i.indexrelid)
    ) l
    order by l.name collate \"C\", l.part, l.position";

/// The routines of a database, a block each.
pub async fn functions(connection: &mut PgConnection) -> String {
    let blocks: Vec<String> = sqlx::query_scalar(FUNCTIONS)
        .fetch_all(connection)
        .await
        .unwrap();
    blocks.join("\n")
}

/// The tables, sequences and views of a database.
pub async fn tables(connection: &mut PgConnection) -> String {
    let lines: Vec<String> = sqlx::query_scalar(TABLES)
        .fetch_all(connection)
        .await
        .unwrap();
    lines.join("\n") + "\n"
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compare with a golden file, or rewrite it.
fn assert_golden(name: &str, actual: &str) {
    let path = project("tests/golden").join(name);
    if std::env::var("BLESS").is_ok_and(|bless| bless == "1") {
        fs::write(&path, actual).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if golden == actual {
        return;
    }
    let same = golden
        .lines()
        .zip(actual.lines())
        .take_while(|(golden, actual)| golden == actual)
        .count();
    let mut difference = format!("tests/golden/{name} differs from line {}:\n", same + 1);
    for (sign, text) in [('-', golden.as_str()), ('+', actual)] {
        for line in text.lines().skip(same).take(SHOWN_LINES) {
            writeln!(difference, "{sign}{line}").unwrap();
        }
    }
    panic!("{difference}If this is meant: BLESS=1 cargo test golden, and review the change.");
}

#[tokio::test]
async fn functions_are_the_reviewed_ones() {
    let database = TestDatabase::create().await;

    let functions = functions(&mut database.connect().await).await;

    assert_golden("functions.txt", &functions);
}

#[tokio::test]
async fn tables_and_views_are_the_reviewed_ones() {
    let database = TestDatabase::create().await;

    let tables = tables(&mut database.connect().await).await;

    assert_golden("schema.txt", &tables);
}

#[test]
fn the_openapi_document_is_the_reviewed_one() {
    let document = fastpubsub::doors::native::document()
        .to_pretty_json()
        .unwrap();

    assert_golden("openapi.json", &(document + "\n"));
}

#[test]
fn routes_and_scopes_are_the_reviewed_ones() {
    let document = serde_json::to_value(fastpubsub::doors::native::document()).unwrap();

    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            routes.push(format!(
                "{} {path} {}\n",
                method.to_uppercase(),
                scope(operation)
            ));
        }
    }
    routes.sort();

    assert_golden("routes.txt", &routes.concat());
}

/// The scope that a route asks for where authentication is on.
fn scope(operation: &Value) -> String {
    let schemes = operation["security"].as_array();
    let scopes: Vec<&str> = schemes
        .into_iter()
        .flatten()
        .filter_map(|scheme| scheme["oauth2"].as_array())
        .flatten()
        .map(|scope| scope.as_str().unwrap())
        .collect();
    if scopes.is_empty() {
        return "public".to_owned();
    }
    scopes.join(" ")
}

#[tokio::test]
async fn metrics_are_the_reviewed_ones() {
    let app = TestApp::start().await;
    app.topic_with_subscription("t", "s", json!({})).await;
    let mut reading = app.database.plain().await;
    // other tests have one now and then, and all see it
    sqlx::query("select pg_create_physical_replication_slot('golden', true, true)")
        .execute(&mut reading)
        .await
        .unwrap();
    app.get("/unknown").await.expect(404);
    let deadline = Instant::now() + Duration::from_secs(30);

    // counts of messages are kept for a while, also of an earlier test in this process
    let mut text = app.get("/metrics").await.expect(200).body;
    let has_all = |text: &str| {
        ["pubsub_subscription_messages{", "pubsub_table_bytes{"]
            .iter()
            .all(|gauge| text.contains(gauge))
    };
    while !has_all(&text) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
        text = app.get("/metrics").await.expect(200).body;
    }

    assert_golden("metrics.txt", &metric_names(&text));
}

/// A line for each metric: name, type, names of the labels.
fn metric_names(text: &str) -> String {
    let mut metrics: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name).or_default().0 = kind;
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let metric = ["", "_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|ending| name.strip_suffix(ending))
            .find(|name| metrics.contains_key(name));
        let Some(metric) = metric else {
            assert!(name.is_empty(), "{line} has no type");
            continue;
        };
        let labels = line
            .split_once('{')
            .and_then(|(_, rest)| rest.rsplit_once('}'))
            .map_or("", |(labels, _)| labels);
        // a value ends where a quote is followed by a comma
        let names = labels
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .map(|(name, _)| name)
            .filter(|name| *name != "le");
        metrics.get_mut(metric).unwrap().1.extend(names);
    }
    let mut lines = String::new();
    for (name, (kind, labels)) in metrics {
        let labels: Vec<&str> = labels.into_iter().collect();
        writeln!(
            lines,
            "{}",
            format!("{name} {kind} {}", labels.join(",")).trim_end()
        )
        .unwrap();
    }
    lines
}

#[test]
fn the_help_is_the_reviewed_one() {
    const SETTINGS: &str = "Settings (";

    let help = help(&["--help"]);
    let (_, settings) = help.split_once(SETTINGS).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let mut all = format!("$ fastpubsub --help\n{help}");
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        let command = line.split_whitespace().next().unwrap();
        if command == "help" {
            continue;
        }
        let help = self::help(&[command, "--help"]);
        let (own, its_settings) = help.split_once(SETTINGS).unwrap_or((&help, ""));
        write!(all, "\n$ fastpubsub {command} --help\n{own}").unwrap();
        if its_settings == settings {
            all += "(the settings)\n";
            continue;
        }
        // as they are explained above
        for line in its_settings.lines().map(str::trim_start) {
            if line.starts_with("--") {
                writeln!(all, "(setting) {line}").unwrap();
            }
        }
    }
    // the end of a line is invisible in a review
    let all: Vec<&str> = all.lines().map(str::trim_end).collect();

    assert_golden("help.txt", &(all.join("\n") + "\n"));
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_fastpubsub"))
        .args(arguments)
        .env_clear()
        .env("COLUMNS", "100")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_sample_has_every_setting_of_the_help_in_its_order() {
    let help = help(&["--help"]);
    let words: Vec<&str> = help.split_whitespace().collect();

    let in_help: Vec<&str> = words
        .windows(2)
        .filter(|pair| pair[0] == "[env:")
        .map(|pair| pair[1].trim_end_matches([']', '=']))
        .collect();

    assert_eq!(sample_names(), in_help);
}

/// The settings of `env.sample`, those without a default included.
fn sample_names() -> Vec<String> {
    let sample = fs::read_to_string(project("env.sample")).unwrap();
    sample
        .lines()
        .map(|line| line.trim_start_matches("# "))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("FASTPUBSUB_"))
        .collect()
}

#[test]
fn every_setting_of_the_sample_is_explained_in_one_line_above_it() {
    let sample = fs::read_to_string(project("env.sample")).unwrap();

    for paragraph in sample.trim_end().split("\n\n").skip(1) {
        let lines: Vec<&str> = paragraph.lines().collect();
        assert_eq!(lines.len(), 2, "{paragraph}");
        assert!(
            lines[0].starts_with("# ") && !lines[0].contains('='),
            "{paragraph}"
        );
        let setting = lines[1].trim_start_matches("# ");
        assert!(setting.starts_with("FASTPUBSUB_"), "{paragraph}");
    }
}

#[test]
fn the_values_of_the_sample_are_the_defaults() {
    let from_sample: BTreeMap<String, String> = dotenvy::from_path_iter(project("env.sample"))
        .unwrap()
        .map(Result::unwrap)
        .collect();

    // every setting that has a default is there, under a name that exists
    let with_default: BTreeSet<String> = command()
        .get_arguments()
        .filter(|argument| !argument.get_default_values().is_empty())
        .map(|argument| argument.get_env().unwrap().to_str().unwrap().to_owned())
        .collect();
    let named: BTreeSet<String> = from_sample.keys().cloned().collect();
    assert_eq!(named, with_default);

    // as the server takes a value of a .env file
    let sampled = settings(command().mut_args(|argument| {
        let name = argument.get_env().unwrap().to_str().unwrap().to_owned();
        match from_sample.get(&name) {
            Some(value) => argument.default_value(value.clone()),
            None => argument,
        }
    }));
    assert_eq!(format!("{sampled:?}"), format!("{:?}", settings(command())));
}

fn command() -> clap::Command {
    Settings::augment_args(clap::Command::new("test"))
}

/// Without a look at the environment of the tests.
fn settings(command: clap::Command) -> Settings {
    let command = command.mut_args(|argument| argument.env(None::<&'static str>));
    Settings::from_arg_matches(&command.get_matches_from(["test"])).unwrap()
}
