//! What the documents tell people to type is run as it stands, and prints what they say.

use std::path::Path;
use std::process::Stdio;

use regex::{Captures, Regex};
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
    assert!(!examples.is_empty(), "{document} has examples");
    examples
}

/// The documents of docs/ with blocks of a language.
fn documents_with(language: &str) -> Vec<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut documents: Vec<String> = std::fs::read_dir(docs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.contains(&format!("```{language}\n"))
        })
        .map(|path| format!("docs/{}", path.file_name().unwrap().to_str().unwrap()))
        .collect();
    documents.sort();
    assert!(documents.len() > 3, "{documents:?}");
    documents
}

/// Ids, times and receipts differ from run to run; which ids and receipts are the same does not.
fn mask(text: &str) -> String {
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|\+00:00)").unwrap();
    let name = r#"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|"(receipt(_handle)?|delivery_tag)":"[^"]+""#;
    let text = time.replace_all(text.trim(), "TIME");
    let mut seen: Vec<String> = Vec::new();
    let numbered = Regex::new(name)
        .unwrap()
        .replace_all(&text, |found: &Captures| {
            let place = seen.iter().position(|name| *name == found[0]);
            let place = place.unwrap_or_else(|| {
                seen.push(found[0].to_owned());
                seen.len() - 1
            });
            format!("NAME{place}")
        });
    numbered.into_owned()
}

/// With BLESS, what was printed takes the place of what the document says.
fn bless(document: &str, expected: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    // in order: an equal block before this one was replaced before
    std::fs::write(path, text.replacen(expected, printed.trim(), 1)).unwrap();
}

/// Run all examples in one go, each announced by a mark, and compare what each printed.
async fn run(mut command: Command, document: &str, examples: &[Example], announce: &str) {
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
            if std::env::var_os("BLESS").is_some() {
                bless(document, expected, printed);
                continue;
            }
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
    for document in documents_with("sh") {
        run_over_http(&document).await;
    }
}

async fn run_over_http(document: &str) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document));
    let keys = Regex::new("FASTPUBSUB_PYQUEUE_API_KEYS_JSON='([^']+)'").unwrap();
    let keys = keys.captures(text.as_ref().unwrap());
    let flags = keys.map(|keys| ["--pyqueue-api-keys-json".to_owned(), keys[1].to_owned()]);
    let flags = flags.iter().flatten().map(String::as_str);
    let app = TestApp::start_with(&flags.collect::<Vec<_>>()).await;
    let mut examples = examples(document, "sh");
    for example in &mut examples {
        example.code = example.code.replace("http://localhost:8000", &app.url);
    }
    let directory = std::env::temp_dir().join(format!("docs-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).unwrap();

    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail"]).current_dir(&directory);
    run(bash, document, &examples, "echo").await;

    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn the_examples_for_psql_do_what_they_say() {
    for document in documents_with("sql") {
        let database = TestDatabase::create().await;

        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(database.url());
        run(psql, &document, &examples(&document, "sql"), "\\echo").await;
    }
}

/// curl 7.68 is what Ubuntu 20.04 has; --json came with 7.82.
#[test]
fn the_examples_for_curl_work_with_an_old_one() {
    let mut documents = documents_with("sh");
    documents.push("README.md".to_owned());
    for document in documents {
        for example in examples(&document, "sh") {
            assert!(
                !example.code.contains("--json"),
                "{document}: {}",
                example.code
            );
        }
    }
}

#[test]
fn every_reference_in_the_openapi_document_leads_somewhere() {
    let document = fastpubsub::doors::native::document().to_json().unwrap();
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();

    let references = Regex::new(r##""\$ref":"#([^"]+)""##).unwrap();
    let mut count = 0;
    for reference in references.captures_iter(&document) {
        assert!(value.pointer(&reference[1]).is_some(), "{}", &reference[1]);
        count += 1;
    }

    assert!(count > 10);
}
