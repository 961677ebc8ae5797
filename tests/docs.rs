//! What the documents tell people to type is run as it stands, and prints what they say.

use std::path::Path;
use std::process::Stdio;

use regex::Regex;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::TestApp;
use crate::support::database::TestDatabase;

/// A fenced block to run, and what the document says it prints, if it says so.
struct Example {
    code: String,
    prints: Option<String>,
}

fn examples(document: &str, language: &str) -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = text.lines().peekable();
    let mut follows_code = false;
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            follows_code &= line.is_empty();
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        if info == language {
            examples.push(Example {
                code: block,
                prints: None,
            });
            follows_code = true;
        } else if follows_code {
            examples.last_mut().unwrap().prints = Some(block);
            follows_code = false;
        }
    }
    assert!(examples.len() > 3, "{document} has examples");
    examples
}

/// Ids, times and receipts differ from run to run.
fn mask(text: &str) -> String {
    let mut text = text.trim().to_owned();
    for (pattern, stand_in) in [
        (
            r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
            "UUID",
        ),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
        (r#""receipt":"[^"]+""#, "RECEIPT"),
    ] {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, stand_in)
            .into_owned();
    }
    text
}

/// Run all examples in one go, each announced by a mark, and compare what each printed.
async fn run(mut command: Command, examples: &[Example], announce: &str) {
    let script: String = examples
        .iter()
        .enumerate()
        .map(|(number, example)| format!("{announce} @@{number}@@\n{}\n", example.code))
        .collect();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .await
        .unwrap();
    let output = child.wait_with_output().await.unwrap();
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");

    for (number, example) in examples.iter().enumerate() {
        let printed = out.split(&format!("@@{number}@@")).nth(1).unwrap();
        let printed = printed.split("@@").next().unwrap();
        if let Some(expected) = &example.prints {
            assert_eq!(mask(printed), mask(expected), "after: {}", example.code);
        }
    }
}

#[tokio::test]
async fn the_readmes_five_minutes_do_what_it_says() {
    run_over_http("README.md").await;
}

#[tokio::test]
async fn the_examples_for_curl_do_what_they_say() {
    for document in ["docs/publishing.md"] {
        run_over_http(document).await;
    }
}

async fn run_over_http(document: &str) {
    let app = TestApp::start().await;
    let mut examples = examples(document, "sh");
    for example in &mut examples {
        example.code = example.code.replace("http://localhost:8000", &app.url);
    }
    let directory = std::env::temp_dir().join(format!("docs-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).unwrap();

    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail"]).current_dir(&directory);
    run(bash, &examples, "echo").await;

    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn the_examples_for_psql_do_what_they_say() {
    for document in ["docs/sql.md", "docs/filters.md", "docs/publishing.md"] {
        let database = TestDatabase::create().await;

        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(database.url());
        run(psql, &examples(document, "sql"), "\\echo").await;
    }
}

#[test]
fn every_reference_in_the_openapi_document_leads_somewhere() {
    let document = fastpubsub::http::document().to_json().unwrap();
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();

    let references = Regex::new(r##""\$ref":"#([^"]+)""##).unwrap();
    let mut count = 0;
    for reference in references.captures_iter(&document) {
        assert!(value.pointer(&reference[1]).is_some(), "{}", &reference[1]);
        count += 1;
    }

    assert!(count > 10);
}
