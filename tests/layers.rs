//! Rules about the code itself: who may speak SQL, who may know whom, how long a file may be.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use fastpubsub::db::schema::ROUTINES;

/// Longest file, in lines.
const MAX_LINES: usize = 500;

pub struct Source {
    /// Relative to the project, such as `src/db/mod.rs`.
    pub path: String,
    pub text: String,
}

impl Source {
    /// The text without its unit tests, which come last or have a file of their own.
    fn code(&self) -> &str {
        if self.path.ends_with("_tests.rs") {
            return "";
        }
        self.text
            .split_once("#[cfg(test)]")
            .map_or(self.text.as_str(), |(code, _)| code)
    }
}

/// The files below a folder with one of these endings.
pub fn sources(folder: &str, endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if ending.is_some_and(|ending| endings.contains(&ending)) {
                let name = path.strip_prefix(root).unwrap();
                found.push(Source {
                    path: name.to_str().unwrap().to_owned(),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    assert!(!found.is_empty(), "nothing in {folder}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Rust code taken apart: what its string literals say, and the rest without literals and comments.
struct Parts {
    literals: Vec<String>,
    code: String,
}

fn parts(text: &str) -> Parts {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| {
        chars[at..]
            .iter()
            .copied()
            .take(what.len())
            .eq(what.chars())
    };
    let (mut literals, mut code, mut at) = (Vec::new(), String::new(), 0);
    while at < chars.len() {
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            while !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if starts(at, "r\"") || starts(at, "r#") {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if chars[at + 1 + hashes] != '"' {
                // a raw identifier
                code.push('r');
                at += 1;
                continue;
            }
            let end = format!("\"{}", "#".repeat(hashes));
            let from = at + hashes + 2;
            at = (from..).find(|at| starts(*at, &end)).unwrap();
            literals.push(chars[from..at].iter().collect());
            at += end.len();
        } else if chars[at] == '"' {
            let from = at + 1;
            at = from;
            while chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            literals.push(chars[from..at].iter().collect());
            at += 1;
        } else if chars[at] == '\'' && (chars[at + 1] == '\\' || chars[at + 2] == '\'') {
            // a character, not a lifetime
            at += if chars[at + 1] == '\\' { 3 } else { 2 };
            while chars[at - 1] != '\'' {
                at += 1;
            }
            at += usize::from(chars[at] == '\'');
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    Parts { literals, code }
}

/// Whether a literal is a statement, or names something of our schemas.
fn speaks_sql(literal: &str) -> bool {
    const SETTINGS: &[&str] = &["search_path", "jit", "local", "session", "timezone"];
    const OBJECTS: &[&str] = &[
        "database", "schema", "table", "view", "function", "index", "role", "sequence", "user",
        "type",
    ];
    let text = literal.to_lowercase();
    let mut words = text.split_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (first, second, third) = (next(), next(), next());
    let is_statement = match first {
        "select" | "truncate" | "with" => !second.is_empty(),
        "insert" | "merge" => second == "into",
        "delete" => second == "from",
        "update" => third == "set",
        "set" => SETTINGS.contains(&second),
        "create" | "drop" | "alter" => OBJECTS.contains(&second),
        _ => false,
    };
    // fastpubsub is us, not the schema
    let names = |schema: &str| {
        text.match_indices(schema)
            .any(|(at, _)| !text[..at].ends_with(char::is_alphanumeric))
    };
    is_statement || names("pubsub.") || names("pubsub_data.")
}

#[test]
fn statements_are_told_from_prose() {
    for sql in [
        "select 1",
        "insert into t values (1)",
        "update t set a = 1",
        "delete from t",
        "create database fastpubsub",
        "set search_path = ''; set jit = off",
        "  SELECT\n1",
        "{} pubsub.get_topic($1)",
        "(pubsub_data.topics)",
    ] {
        assert!(speaks_sql(sql), "{sql}");
    }
    for prose in [
        "create topics",
        "delete topics",
        "update clients",
        "select",
        "pubsub_subscription_messages",
        "no FASTPUBSUB_DATABASE_URL. Run fastpubsub.",
        "set it to true",
        "",
    ] {
        assert!(!speaks_sql(prose), "{prose}");
    }
}

#[test]
fn literals_are_told_from_code() {
    let parts = parts(
        "let a = \"one \\\" two\"; // \"no\"\n/* \"no\" */ let b = r#\"three \"4\"\"#; \
         let c = '\"'; let d: &'static str = \"five\"; let e = '\\''; let r#type = \"six\";",
    );

    assert_eq!(
        parts.literals,
        ["one \\\" two", "three \"4\"", "five", "six"]
    );
    assert!(parts.code.contains("let d: &'static str = ;"));
}

#[test]
fn only_the_database_layer_speaks_sql() {
    let allowed = |path: &str, literal: &str| {
        path.starts_with("src/db/")
            || path.starts_with("src/postgres/") && literal == "create database fastpubsub"
    };

    for source in sources("src", &["rs"]) {
        for literal in parts(&source.text).literals {
            assert!(
                !speaks_sql(&literal) || allowed(&source.path, &literal),
                "{} speaks SQL: {literal}",
                source.path
            );
        }
    }
}

/// The modules of the crate, each of which may use only those before it.
const MODULES: [&str; 14] = [
    "error",
    "config",
    "descriptors",
    "shutdown",
    "db",
    "budget",
    "auth",
    "postgres",
    "telemetry",
    "engine",
    "push",
    "app",
    "doors",
    "cli",
];

/// The first name in what follows each `prefix` in some code: of a path, or of each path of a group.
fn named_after(code: &str, prefix: &str) -> Vec<String> {
    let first = |path: &str| {
        let path = path.trim_start();
        let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        path[..end.unwrap_or(path.len())].to_owned()
    };
    let mut named = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => named.extend(group.split('}').next().unwrap().split(',').map(first)),
            None => named.push(first(rest)),
        }
    }
    named
}

#[test]
fn paths_are_found_in_groups_too() {
    let code = "use crate::app;\nuse crate::{db, engine::Engine};\ncrate::doors::serve::serve()";

    let named = named_after(code, "crate::");

    assert_eq!(named, ["app", "db", "engine", "doors"]);
}

#[test]
fn no_module_uses_one_that_comes_after_it() {
    for source in sources("src", &["rs"]) {
        let name = source.path.trim_start_matches("src/");
        let module = name.split(['/', '.']).next().unwrap();
        let Some(place) = MODULES.iter().position(|known| *known == module) else {
            assert!(
                ["lib", "main"].contains(&module),
                "{} is in no layer",
                source.path
            );
            continue;
        };
        for used in named_after(&parts(source.code()).code, "crate::") {
            let at = MODULES.iter().position(|known| *known == used);
            assert!(
                at.is_some_and(|at| at <= place),
                "{} uses {used}, which comes after {module}",
                source.path
            );
        }
    }
}

#[test]
fn only_the_front_doors_and_push_know_http() {
    for source in sources("src", &["rs"]) {
        let code = parts(&source.text).code;
        for stranger in ["axum", "tower_http", "hyper::"] {
            assert!(
                source.path.starts_with("src/doors/")
                    || stranger == "hyper::" && source.path.starts_with("src/push/")
                    || !code.contains(stranger),
                "{} names {stranger}",
                source.path
            );
        }
    }
}

/// What publishes, hands out, settles or brings back has to go through the engine.
#[test]
fn no_door_goes_round_the_engine() {
    for source in sources("src/doors", &["rs"]) {
        let code = parts(source.code()).code;
        for function in [
            "publish::publish(",
            "messages::consume(",
            "messages::ack(",
            "messages::nack(",
            "settlements::settle(",
            "settlements::release(",
            "transactions::apply(",
            "dead_letters::reprocess",
            "dead_letters::resume(",
            "seek::begin(",
            "browse::update(",
            "browse::delete(",
            "browse::purge(",
            "subscriptions::update(",
        ] {
            let name = format!("db::{function}");
            assert!(!code.contains(&name), "{} calls {name}", source.path);
        }
    }
}

#[test]
fn no_door_knows_another_and_what_they_share_knows_none() {
    let sources = sources("src/doors", &["rs"]);
    let inside = |path: &str| path.trim_start_matches("src/doors/").to_owned();
    let mut doors: Vec<String> = sources
        .iter()
        .filter_map(|source| Some(inside(&source.path).split_once('/')?.0.to_owned()))
        .collect();
    doors.dedup();
    assert!(!doors.is_empty());

    for source in sources
        .iter()
        .filter(|source| source.path != "src/doors/mod.rs")
    {
        let own = inside(&source.path);
        let own = own.split('/').next().unwrap();
        let code = parts(source.code()).code;
        let shared = !doors.iter().any(|door| door == own);
        let prefixes = if shared {
            ["crate::doors::", "super::"]
        } else {
            ["crate::doors::"; 2]
        };
        for named in prefixes
            .iter()
            .flat_map(|prefix| named_after(&code, prefix))
        {
            assert!(
                named == own || !doors.contains(&named),
                "{} names the door {named}",
                source.path
            );
        }
    }
}

#[test]
fn nothing_but_tests_panics_on_purpose() {
    for source in sources("src", &["rs"]) {
        let code = parts(source.code()).code;
        for panic in [
            ".unwrap()",
            ".expect(",
            ".unwrap_err(",
            ".expect_err(",
            "panic!(",
            "todo!(",
            "unimplemented!(",
            "unreachable!(",
        ] {
            assert!(!code.contains(panic), "{} has {panic}", source.path);
        }
    }
}

/// Code of a file of `sql/`, without comments.
fn sql_code(text: &str) -> String {
    let mut code = String::new();
    for (at, part) in text.split("/*").enumerate() {
        let part = if at == 0 {
            part
        } else {
            part.split_once("*/").unwrap().1
        };
        for line in part.lines() {
            code.push_str(line.split("--").next().unwrap());
            code.push('\n');
        }
    }
    code
}

/// What follows `pubsub.` wherever it is named.
fn routines_named(code: &str) -> impl Iterator<Item = &str> {
    code.split("pubsub.").skip(1).map(|rest| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        rest.split(|c| !is_name(c)).next().unwrap()
    })
}

/// So there is no circle, and no folder knows of a later one: the list of files is in their order.
#[test]
fn a_file_of_routines_uses_only_itself_and_those_before_it() {
    let files: Vec<(&str, String)> = ROUTINES
        .iter()
        .map(|(name, text)| (*name, sql_code(text)))
        .collect();
    let defined = |code: &str| -> Vec<String> {
        let starts = ["function ", "procedure ", "view ", "type "];
        code.lines()
            .filter_map(|line| line.strip_prefix("create "))
            .filter_map(|rest| starts.iter().find_map(|kind| rest.strip_prefix(kind)))
            .flat_map(|rest| routines_named(rest).take(1).map(str::to_owned))
            .collect()
    };
    let homes: HashMap<String, usize> = files
        .iter()
        .enumerate()
        .flat_map(|(at, (_, code))| defined(code).into_iter().map(move |name| (name, at)))
        .collect();
    assert!(homes.len() > 100, "{homes:?}");

    for (at, (name, code)) in files.iter().enumerate() {
        for used in routines_named(code) {
            if let Some(&home) = homes.get(used) {
                assert!(home <= at, "{name} uses {used} of {}", files[home].0);
            }
        }
    }
}

/// The routines of a file, with how many lines each has from `create` to its end.
fn routine_lengths(text: &str) -> Vec<(&str, usize)> {
    let mut lengths = Vec::new();
    let mut begun: Option<(&str, usize)> = None;
    for (at, line) in text.lines().enumerate() {
        for kind in ["create function ", "create procedure "] {
            if let Some(rest) = line.strip_prefix(kind) {
                begun = Some((routines_named(rest).next().unwrap(), at));
            }
        }
        if matches!(line, "$$;" | "end;")
            && let Some((name, from)) = begun.take()
        {
            lengths.push((name, at - from + 1));
        }
    }
    lengths
}

#[test]
fn routines_are_short() {
    const MAX_ROUTINE_LINES: usize = 100;
    let lengths: Vec<(&str, usize)> = ROUTINES
        .iter()
        .flat_map(|(_, text)| routine_lengths(text))
        .collect();
    assert!(lengths.len() > 100, "{lengths:?}");

    let long: Vec<_> = lengths
        .into_iter()
        .filter(|(_, lines)| *lines > MAX_ROUTINE_LINES)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn no_file_is_long() {
    for folder in ["src", "tests", "sql", "migrations"] {
        for source in sources(folder, &["rs", "sql"]) {
            let lines = source.text.lines().count();
            // what another release was is not for reading
            if source.path.starts_with("tests/fixtures/") {
                continue;
            }
            assert!(lines <= MAX_LINES, "{} has {lines} lines", source.path);
        }
    }
}
