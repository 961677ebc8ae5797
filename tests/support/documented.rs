//! Every answer that a test sees is held against the OpenAPI document of its door: its status must be there, and
//! its body must be of the form that is described for it.

use std::sync::LazyLock;

use fastpubsub::doors::{broker, native, pulsar, pyqueue};
use serde_json::{Map, Value};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(native::document()).unwrap());
static PYQUEUE: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(pyqueue::document()).unwrap());
static BROKER: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(broker::document()).unwrap());
static PULSAR: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(pulsar::document()).unwrap());

/// The document of the door at a path, and the path from there.
fn document(path: &str) -> (&'static Value, &str) {
    if let Some(rest) = path.strip_prefix(broker::MOUNT) {
        return (&BROKER, rest);
    }
    if let Some(rest) = path.strip_prefix(pulsar::MOUNT) {
        return (&PULSAR, rest);
    }
    match path.strip_prefix(pyqueue::MOUNT) {
        Some(rest) => (&PYQUEUE, if rest.is_empty() { "/" } else { rest }),
        None => (&DOCUMENT, path),
    }
}

/// What a document says of a request; none for what is no route.
fn operation(document: &'static Value, method: &str, path: &str) -> Option<&'static Value> {
    let paths = document["paths"].as_object()?;
    // a fixed path goes before one with an {id}
    let (_, item) = paths
        .iter()
        .filter(|(template, _)| fits(template, path))
        .min_by_key(|(template, _)| template.matches('{').count())?;
    item.get(method.to_lowercase())
}

fn fits(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(step), Some(given)) if step == given => {}
            (Some(step), Some(given)) if step.starts_with('{') && !given.is_empty() => {}
            _ => return false,
        }
    }
}

/// Fail unless an answer is documented.
#[track_caller]
pub fn check(method: &str, path: &str, status: u16, body: &str) {
    let (document, path) = document(path);
    let Some(operation) = operation(document, method, path) else {
        return;
    };
    let responses = &operation["responses"];
    let response = &responses[status.to_string()];
    assert!(
        response.is_object(),
        "{method} {path}: {status} is not documented: {body:.300}"
    );
    let Some(content) = response.get("content") else {
        assert_eq!(body, "", "{method} {path} {status}");
        return;
    };
    let Some(schema) = content.get("application/json") else {
        return;
    };
    let value: Value = match serde_json::from_str(body) {
        Ok(value) => value,
        // a payload may be nested deeper than this parser goes
        Err(error) if error.to_string().contains("recursion limit") => return,
        Err(error) => panic!("{method} {path} {status}: {error}"),
    };
    if let Err(fault) = matches_in(document, &schema["schema"], &value) {
        panic!("{method} {path} {status}: {fault}\n{body:.1000}");
    }
}

/// Whether a value is of the form of a schema of the native document; if not, where.
pub fn matches(schema: &Value, value: &Value) -> Result<(), String> {
    matches_in(&DOCUMENT, schema, value)
}

fn matches_in(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return matches_in(document, document.pointer(&reference[1..]).unwrap(), value);
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let faults: Vec<String> = options
            .iter()
            .map_while(|option| matches_in(document, option, value).err())
            .collect();
        return match faults.len() < options.len() {
            true => Ok(()),
            false => Err(format!("none of: {}", faults.join("; "))),
        };
    }
    let types: Vec<&Value> = match &schema["type"] {
        Value::Null => return Ok(()),
        Value::Array(types) => types.iter().collect(),
        one => vec![one],
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    // a whole number is a number, too
    let or = if is == "integer" { "number" } else { is };
    if !types.iter().any(|one| **one == is || **one == or) {
        return Err(format!("{is} where {types:?} is documented: {value}"));
    }
    match value {
        Value::Array(values) => values
            .iter()
            .try_for_each(|value| matches_in(document, &schema["items"], value)),
        Value::Object(fields) => fields_match(document, schema, fields),
        _ => Ok(()),
    }
}

fn fields_match(
    document: &Value,
    schema: &Value,
    fields: &Map<String, Value>,
) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, value) in fields {
        let documented = match schema["properties"].get(name) {
            Some(property) => property,
            None => match &schema["additionalProperties"] {
                Value::Bool(true) => continue,
                more @ Value::Object(_) => more,
                _ => return Err(format!("{name} is not documented")),
            },
        };
        matches_in(document, documented, value).map_err(|fault| format!("{name}: {fault}"))?;
    }
    Ok(())
}
