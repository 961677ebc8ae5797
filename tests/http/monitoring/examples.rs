//! The examples of the OpenAPI document, as "Try it out" of `/docs` sends them.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, answer, documented};

struct Operation {
    method: String,
    path: String,
    said: Value,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, said) in item.as_object().unwrap() {
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                said: said.clone(),
            });
        }
    }
    operations
}

/// The example of a JSON body: that of the content, or that of the schema.
fn example(document: &Value, said: &Value) -> Option<Value> {
    let content = said.pointer("/requestBody/content/application~1json")?;
    if let Some(example) = content.get("example") {
        return Some(example.clone());
    }
    let reference = content.pointer("/schema/$ref")?.as_str()?;
    document.pointer(&reference[1..])?.get("example").cloned()
}

/// Send what "Execute" sends.
async fn execute(app: &TestApp, document: &Value, operation: &Operation) -> Answer {
    let mut path = operation.path.clone();
    let mut query = Vec::new();
    for parameter in operation.said["parameters"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let name = parameter["name"].as_str().unwrap();
        let value = parameter
            .get("example")
            .or(parameter["schema"].get("default"));
        let text = value.map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
        match (parameter["in"].as_str().unwrap(), text) {
            ("path", text) => {
                let text = text.unwrap_or_else(|| panic!("{path}: {name} has no example"));
                path = path.replace(&format!("{{{name}}}"), &text);
            }
            ("query", Some(text)) => query.push(format!("{name}={text}")),
            (_, None) => assert_ne!(parameter["required"], true, "{path}: {name} has no example"),
            _ => {}
        }
    }
    let query = match query.is_empty() {
        true => String::new(),
        false => format!("?{}", query.join("&")),
    };
    let mut request = app.request(&operation.method, &format!("{path}{query}"));
    if let Some(body) = example(document, &operation.said) {
        request = request.json(&body);
    }
    answer(request).await
}

#[tokio::test]
async fn the_examples_work_on_a_fresh_server_in_the_documented_order() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.expect(200).json();
    let operations = operations(&document);
    let description = document["info"]["description"].as_str().unwrap();
    let steps = description
        .lines()
        .filter(|line| line.starts_with(char::is_numeric));
    let names = Regex::new("`([a-z_]+)`").unwrap();
    let steps = steps.collect::<Vec<_>>().join("\n");
    let mut tried = BTreeSet::new();

    for name in names.captures_iter(&steps).map(|found| found[1].to_owned()) {
        let operation = operations
            .iter()
            .find(|operation| operation.said["operationId"] == name.as_str())
            .unwrap_or_else(|| panic!("{name} is no operation"));
        let answer = execute(&app, &document, operation).await;
        assert!(
            (200..300).contains(&answer.status),
            "{name}: {}",
            answer.body
        );
        tried.insert(name);
    }

    assert!(tried.len() >= 20, "{tried:?}");
}

/// In whatever order: an example may name what is not there, but it has the right form.
#[tokio::test]
async fn no_example_is_refused_for_its_form() {
    let app = TestApp::start_with(&["--auth-secret-key", crate::support::SECRET_KEY]).await;
    let document = app.get("/openapi.json").await.expect(200).json();

    for operation in operations(&document) {
        let what = format!("{} {}", operation.method, operation.path);
        let answer = execute(&app, &document, &operation).await;
        assert_ne!(answer.status, 422, "{what}: {}", answer.body);
        assert!(answer.status < 500, "{what}: {}", answer.body);
        if operation.said.get("requestBody").is_some() {
            let example = example(&document, &operation.said);
            let example = example.unwrap_or_else(|| panic!("{what} has no example"));
            let schema = &operation.said["requestBody"]["content"]["application/json"]["schema"];
            documented::matches(schema, &example).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        }
    }
}

/// Every field that a body may have, sent as null and left out: the document says which is taken.
#[tokio::test]
async fn what_may_be_null_or_left_out_is_so() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.expect(200).json();
    app.topic_with_subscription("user-events", "user-processor", json!({}))
        .await;
    let (mut tried, mut wrong) = (0, Vec::new());

    for operation in operations(&document) {
        let body = &operation.said["requestBody"]["content"]["application/json"];
        let Some(reference) = body["schema"]["$ref"].as_str() else {
            continue;
        };
        let schema = document.pointer(&reference[1..]).unwrap();
        let Some(properties) = schema["properties"].as_object() else {
            continue;
        };
        if operation.path == "/oauth/token" {
            continue;
        }
        for (field, property) in properties {
            let id = operation.said["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|parameter| parameter["name"] == "id");
            let id = id.map_or("", |id| id["example"].as_str().unwrap());
            let path = operation.path.replace("{id}", id);
            let mut example = example(&document, &operation.said).unwrap();
            if let Some(wait) = example.get_mut("wait_seconds") {
                *wait = json!(0);
            }
            let required = schema["required"]
                .as_array()
                .is_some_and(|names| names.contains(&json!(field)));
            for value in [Some(Value::Null), None] {
                let fields = example.as_object_mut().unwrap();
                match &value {
                    Some(value) => fields.insert(field.clone(), value.clone()),
                    None => fields.remove(field),
                };
                let taken = match &value {
                    Some(value) => documented::matches(property, value).is_ok(),
                    None => !required,
                };
                let what = format!("{} {path} {example}", operation.method);
                let answer = answer(app.request(&operation.method, &path).json(&example)).await;
                let refused = answer.status == 422
                    && answer.json()["detail"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|fault| fault["loc"][1] == json!(field));
                if refused == taken {
                    wrong.push(format!("{field} of {what}: {}", answer.body));
                }
                tried += 1;
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 80, "{tried}");
}
