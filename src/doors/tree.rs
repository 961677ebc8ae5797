//! JSON texts taken apart with bounded memory: `[{"":0},{"":0},...]` as a tree is two hundred times as
//! large as its text. Small bodies become trees, up to a budget; of large ones only what is needed.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value, json};

use crate::doors::given;
use crate::error::{Error, Fault, Form, Rule, Step};

/// Most memory of a tree, roughly.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Most memory of a field of a message: 100 attributes of the longest name and value have their half.
const MOST_BYTES_OF_PART: usize = 1024 * 1024;
/// Of any value: an element of a list or an entry of an object.
const VALUE_BYTES: usize = 64;
/// Of an object that is not empty, beside its entries.
const OBJECT_BYTES: usize = 640;
/// Most fields of an object that are kept; none has so many that are known.
const MOST_FIELDS: usize = 200;

/// Parse a JSON text.
///
/// # Errors
/// 422 with the position of the first mistake, or when it holds too much.
pub fn parse_json(bytes: &[u8]) -> Result<Value, Error> {
    parse_within(bytes, MOST_BYTES)
}

fn parse_within(bytes: &[u8], mut left: usize) -> Result<Value, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Tree(&mut left).deserialize(&mut deserializer);
    match parsed.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) if error.is_data() && left == 0 => Err(too_much()),
        Err(error) => Err(mistake(bytes, &error)),
    }
}

/// A tree of a field of a message, if it is not too much for any.
///
/// Text is never too much: its length is for others to judge.
#[must_use]
pub fn part(text: &RawValue) -> Option<Value> {
    if text.get().starts_with('"') {
        return serde_json::from_str(text.get()).map(Value::String).ok();
    }
    parse_within(text.get().as_bytes(), MOST_BYTES_OF_PART).ok()
}

fn too_much() -> Error {
    let text = "the body holds too many values".to_owned();
    Error::fault(Vec::new(), Rule::Refused(text))
}

/// The refusal of a text that is not JSON.
#[must_use]
pub fn mistake(bytes: &[u8], error: &serde_json::Error) -> Error {
    let before = bytes
        .split(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1));
    let line_start: usize = before.map(|line| line.len() + 1).sum();
    let position = line_start + error.column().saturating_sub(1);
    let rule = Rule::Json(error.to_string());
    Error::Invalid(vec![Fault::body(vec![position.into()], rule, json!({}))])
}

/// The refusal of a text that is not of a form, or not even JSON.
#[must_use]
pub fn not_a(form: Form, bytes: &[u8]) -> Error {
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(text) => {
            let given = given::json(text.get());
            Error::Invalid(vec![Fault::body(Vec::new(), Rule::Is(form), given)])
        }
        Err(error) => mistake(bytes, &error),
    }
}

/// Some elements of a list, as they came.
#[derive(Debug, Default)]
pub struct List<'a> {
    /// The first ones.
    pub items: Vec<&'a RawValue>,
    /// How many there are in all.
    pub count: usize,
}

/// A list, whose first `most` elements are kept.
///
/// # Errors
/// When it is not a list, or not JSON.
pub fn list(text: &[u8], most: usize) -> serde_json::Result<List<'_>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let list = deserializer.deserialize_seq(ListVisitor(most))?;
    deserializer.end().map(|()| list)
}

/// The fields of an object, as they came; unknown ones are cut off at some number.
///
/// # Errors
/// When it is not an object, or not JSON.
pub fn object(text: &[u8]) -> serde_json::Result<HashMap<String, &RawValue>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let fields = deserializer.deserialize_map(ObjectVisitor)?;
    deserializer.end().map(|()| fields)
}

/// One field of a JSON object, as the text that came; none when it is absent or null.
#[must_use]
pub fn raw_field(bytes: &[u8], name: &str) -> Option<Box<RawValue>> {
    let text = find(bytes, &name.into())?;
    (text.get() != "null").then(|| text.to_owned())
}

/// What a path of keys and positions leads to.
#[must_use]
pub fn at<'a>(text: &'a [u8], path: &[Step]) -> Option<&'a RawValue> {
    let mut found: &'a RawValue = serde_json::from_slice(text).ok()?;
    for step in path {
        found = find(found.get().as_bytes(), step)?;
    }
    Some(found)
}

fn find<'a>(text: &'a [u8], step: &Step) -> Option<&'a RawValue> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    deserializer.deserialize_any(Find(step)).ok()?
}

struct Find<'s>(&'s Step);

impl<'a> Visitor<'a> for Find<'_> {
    type Value = Option<&'a RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match self.0 {
                Step::Field(name) if *name == key => found = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Step::Position(position) = self.0 else {
            return Ok(None);
        };
        for _ in 0..*position {
            seq.next_element::<IgnoredAny>()?;
        }
        let found = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

struct ListVisitor(usize);

impl<'a> Visitor<'a> for ListVisitor {
    type Value = List<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<List<'a>, A::Error> {
        let mut list = List::default();
        while list.count < self.0
            && let Some(item) = seq.next_element()?
        {
            list.items.push(item);
            list.count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            list.count += 1;
        }
        Ok(list)
    }
}

struct ObjectVisitor;

impl<'a> Visitor<'a> for ObjectVisitor {
    type Value = HashMap<String, &'a RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value()?;
            if fields.len() < MOST_FIELDS || fields.contains_key(&key) {
                fields.insert(key, value);
            }
        }
        Ok(fields)
    }
}

/// Builds a tree as serde_json does, until it takes more memory than is left.
struct Tree<'l>(&'l mut usize);

impl Tree<'_> {
    fn take<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                *self.0 = left;
                Ok(())
            }
            None => {
                *self.0 = 0;
                Err(E::custom("too many values"))
            }
        }
    }
}

impl<'a> DeserializeSeed<'a> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'a>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.take(VALUE_BYTES)?;
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<Value, E> {
        self.take(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Tree(self.0))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if fields.is_empty() {
                self.take(OBJECT_BYTES)?;
            }
            self.take(VALUE_BYTES + key.len())?;
            let value = map.next_value_seed(Tree(self.0))?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_that_of_serde_json() {
        for text in [
            r#"{"a": [1, -2, 3.5, 18446744073709551615, true, null, "x\u00e9"], "a": {"b": {}}}"#,
            "[]",
            " 5 ",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse_json(text.as_bytes()).unwrap(), expected);
        }
        for text in [
            "",
            "[1,",
            "[1] 2",
            "{\"a\" 1}",
            "[1e999]",
            "\"\\ud800\"",
            &"[".repeat(500),
        ] {
            let expected = serde_json::from_str::<Value>(text).unwrap_err();
            let Err(Error::Invalid(faults)) = parse_json(text.as_bytes()) else {
                panic!("{text} is taken")
            };
            assert_eq!(faults[0].rule, Rule::Json(expected.to_string()));
        }
    }

    #[test]
    fn a_tree_has_an_end() {
        for text in [
            format!("[{}0]", "{\"\":0},".repeat(100_000)),
            format!("[{}0]", "0,".repeat(1_000_000)),
            format!("[\"{}\"]", "x".repeat(MOST_BYTES)),
        ] {
            let Err(Error::Invalid(faults)) = parse_json(text.as_bytes()) else {
                panic!("taken")
            };
            assert!(matches!(faults[0].rule, Rule::Refused(_)));
        }
    }

    #[test]
    fn of_a_large_text_only_what_is_asked_for_is_kept() {
        let text = br#"[{"a": [10, {"b": 7}]}, 2, 3]"#;

        let list = list(text, 2).unwrap();
        let path = [0.into(), "a".into(), 1.into(), "b".into()];

        assert_eq!((list.items.len(), list.count), (2, 3));
        assert_eq!(at(text, &path).unwrap().get(), "7");
        assert!(at(text, &[9.into()]).is_none());
        let many: String = (0..1000).map(|n| format!("\"{n}\": 0,")).collect();
        let fields = format!("{{{many} \"5\": 1}}");
        let fields = object(fields.as_bytes()).unwrap();
        assert_eq!(fields.len(), MOST_FIELDS);
        assert_eq!(fields["5"].get(), "1");
    }
}
