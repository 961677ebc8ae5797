//! Checking request bodies field by field, with the errors and the lax conversions of the Python
//! original: all faults of a request are reported at once, each with its place and the value given.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::error::{Error, Fault, MAX_FAULTS};
use crate::given;

/// Characters of topic and subscription ids, as the pattern that errors show.
pub const ID_PATTERN: &str = "^[a-zA-Z0-9-._]+$";
/// Most characters of an id.
pub const ID_MAX_LENGTH: usize = 128;
/// Most characters of other text, such as a client's name.
pub const TEXT_MAX_LENGTH: usize = 1024;

/// One fault.
#[must_use]
pub fn fault(kind: &'static str, loc: Vec<Value>, msg: &str, input: Value) -> Fault {
    Fault {
        kind,
        loc,
        msg: msg.to_owned(),
        input,
        ctx: None,
    }
}

/// One fault with the limits that apply.
#[must_use]
pub fn fault_with(
    kind: &'static str,
    loc: Vec<Value>,
    msg: &str,
    input: Value,
    ctx: Value,
) -> Fault {
    Fault {
        ctx: Some(ctx),
        ..fault(kind, loc, msg, input)
    }
}

/// The fields of a body or query, and the faults found in them so far. A getter of a faulty field
/// returns a placeholder; [`Fields::finish`] then refuses the request. What nobody asked for is a
/// fault of a body too: a typo must not pass in silence.
pub struct Fields<'a> {
    place: &'static str,
    values: &'a Map<String, Value>,
    /// Those of the values that were asked for.
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<'a> Fields<'a> {
    /// The fields of a JSON body.
    ///
    /// # Errors
    /// When it is not an object.
    pub fn of_body(body: &'a Value) -> Result<Self, Error> {
        let Some(values) = body.as_object() else {
            return Err(Error::Invalid(vec![fault(
                "model_attributes_type",
                vec![json!("body")],
                "Input should be a valid dictionary or object to extract fields from",
                given::value(body),
            )]));
        };
        Ok(Self {
            place: "body",
            values,
            known: Vec::new(),
            faults: Vec::new(),
        })
    }

    /// The parameters of a query, all of them strings.
    #[must_use]
    pub fn of_query(values: &'a Map<String, Value>) -> Self {
        Self {
            place: "query",
            values,
            known: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Refuse the request if there was a fault, or a field that nobody asked for. The parameters of a
    /// query are known before a handler sees them.
    ///
    /// # Errors
    /// All faults.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.place == "body" && self.known.len() < self.values.len() {
            let values = self.values;
            let others = values
                .keys()
                .filter(|name| !self.known.contains(&name.as_str()));
            for name in others.take(MAX_FAULTS).collect::<Vec<_>>() {
                self.faults.push(self.unknown(name));
            }
        }
        self.finish_ignoring_others()
    }

    fn unknown(&self, name: &str) -> Fault {
        let loc = vec![json!(self.place), json!(name)];
        let input = self.values.get(name).cloned().unwrap_or(Value::Null);
        let msg = "Extra inputs are not permitted";
        fault("extra_forbidden", loc, msg, input)
    }

    /// Refuse the request if there was a fault, whatever else it holds.
    ///
    /// # Errors
    /// All faults.
    pub fn finish_ignoring_others(self) -> Result<(), Error> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self.faults))
        }
    }

    /// The value of a field; an explicit null counts as none where the field may be left out.
    pub fn optional(&mut self, name: &'static str) -> Option<&'a Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    /// The value of a field, which is known from now on.
    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        let value = self.values.get(name)?;
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        Some(value)
    }

    /// Note that these fields may be there, though they are read in another way.
    pub fn know(&mut self, names: &[&'static str]) {
        for name in names {
            self.get(name);
        }
    }

    /// Note a fault of a field.
    pub fn refuse(&mut self, name: &str, kind: &'static str, msg: &str, ctx: Option<Value>) {
        let input = self.values.get(name).map(given::value).unwrap_or_default();
        let loc = vec![json!(self.place), json!(name)];
        self.faults.push(Fault {
            kind,
            loc,
            msg: msg.to_owned(),
            input,
            ctx,
        });
    }

    /// The value of a field that must be there; null is a value.
    pub fn required(&mut self, name: &'static str) -> Option<&'a Value> {
        let value = self.get(name);
        if value.is_none() {
            let input = match self.place {
                "body" => given::object(self.values),
                _ => Value::Null,
            };
            let loc = vec![json!(self.place), json!(name)];
            self.faults
                .push(fault("missing", loc, "Field required", input));
        }
        value
    }

    /// Text of a length from `min` to `max` characters, without NUL.
    pub fn text(&mut self, name: &'static str, min: usize, max: usize) -> String {
        let Some(value) = self.required(name) else {
            return String::new();
        };
        let Some(text) = value.as_str() else {
            self.refuse(name, "string_type", "Input should be a valid string", None);
            return String::new();
        };
        let length = text.chars().count();
        if length > max {
            let msg = format!("String should have at most {max} characters");
            self.refuse(
                name,
                "string_too_long",
                &msg,
                Some(json!({"max_length": max})),
            );
        } else if length < min {
            let plural = if min == 1 { "" } else { "s" };
            let msg = format!("String should have at least {min} character{plural}");
            self.refuse(
                name,
                "string_too_short",
                &msg,
                Some(json!({"min_length": min})),
            );
        } else if text.contains('\0') {
            let ctx = Some(json!({"error": {}}));
            self.refuse(name, "value_error", "Value error, NUL is not allowed", ctx);
        }
        text.to_owned()
    }

    /// Text with the surrounding space removed, of at least one character.
    pub fn trimmed(&mut self, name: &'static str) -> String {
        let text = self.text(name, 0, TEXT_MAX_LENGTH).trim().to_owned();
        if text.is_empty() && self.values.get(name).is_some_and(Value::is_string) {
            let ctx = Some(json!({"min_length": 1}));
            self.refuse(
                name,
                "string_too_short",
                "String should have at least 1 character",
                ctx,
            );
        }
        text
    }

    /// The id of a topic or subscription.
    pub fn id(&mut self, name: &'static str) -> String {
        let before = self.faults.len();
        let text = self.text(name, 0, ID_MAX_LENGTH);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if self.faults.len() == before && (text.is_empty() || !text.chars().all(fits)) {
            let msg = format!("String should match pattern '{ID_PATTERN}'");
            let ctx = Some(json!({"pattern": ID_PATTERN}));
            self.refuse(name, "string_pattern_mismatch", &msg, ctx);
        }
        text
    }

    /// A UUID.
    pub fn uuid(&mut self, name: &'static str) -> Uuid {
        let Some(value) = self.required(name) else {
            return Uuid::nil();
        };
        match value.as_str().map(Uuid::parse_str) {
            Some(Ok(id)) => id,
            Some(Err(error)) => {
                let msg = format!("Input should be a valid UUID, {error}");
                let ctx = Some(json!({"error": error.to_string()}));
                self.refuse(name, "uuid_parsing", &msg, ctx);
                Uuid::nil()
            }
            None => {
                let msg = "UUID input should be a string, bytes or UUID object";
                self.refuse(name, "uuid_type", msg, None);
                Uuid::nil()
            }
        }
    }

    /// A list of UUIDs.
    pub fn uuids(&mut self, name: &'static str) -> Vec<Uuid> {
        let Some(value) = self.required(name) else {
            return Vec::new();
        };
        let Some(values) = value.as_array() else {
            self.refuse(name, "list_type", "Input should be a valid list", None);
            return Vec::new();
        };
        let mut ids = Vec::with_capacity(values.len());
        for (position, value) in values.iter().enumerate() {
            match value.as_str().map(Uuid::parse_str) {
                Some(Ok(id)) => ids.push(id),
                _ if self.faults.len() >= MAX_FAULTS => break,
                _ => {
                    let loc = vec![json!(self.place), json!(name), json!(position)];
                    let msg = "Input should be a valid UUID";
                    self.faults
                        .push(fault("uuid_parsing", loc, msg, given::value(value)));
                }
            }
        }
        ids
    }

    /// A whole number from `min` to `max`, or the default: 7, 7.0, "7" and true (1) are taken.
    pub fn integer(&mut self, name: &'static str, default: i64, min: i64, max: i64) -> i64 {
        let Some(value) = self.get(name) else {
            return default;
        };
        let number = match value {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Ok(i128::from(number)),
                (None, Some(float)) => whole(float).ok_or((
                    "int_from_float",
                    "Input should be a valid integer, got a number with a fractional part",
                )),
                (None, None) => Err(("int_type", "Input should be a valid integer")),
            },
            Value::Bool(flag) => Ok(i128::from(*flag)),
            Value::String(text) => parse_integer(text).ok_or((
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
            )),
            _ => Err(("int_type", "Input should be a valid integer")),
        };
        match number {
            Ok(number) if number < i128::from(min) => {
                let msg = format!("Input should be greater than or equal to {min}");
                self.refuse(name, "greater_than_equal", &msg, Some(json!({"ge": min})));
            }
            Ok(number) if number > i128::from(max) => {
                let msg = format!("Input should be less than or equal to {max}");
                self.refuse(name, "less_than_equal", &msg, Some(json!({"le": max})));
            }
            Ok(number) => return i64::try_from(number).unwrap_or(default),
            Err((kind, msg)) => self.refuse(name, kind, msg, None),
        }
        default
    }

    /// A whole number that fits Postgres's `int`.
    pub fn int(&mut self, name: &'static str, default: i32, min: i32, max: i32) -> i32 {
        let number = self.integer(name, default.into(), min.into(), max.into());
        i32::try_from(number).unwrap_or(default)
    }

    /// true or false, if given: 1, "yes", "on" and the like are taken.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let (kind, msg) = match self.get(name)? {
            Value::Bool(flag) => return Some(*flag),
            Value::Number(number) => match number.as_f64() {
                Some(1.0) => return Some(true),
                Some(0.0) => return Some(false),
                _ => (
                    "bool_parsing",
                    "Input should be a valid boolean, unable to interpret input",
                ),
            },
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" | "yes" | "y" | "on" => return Some(true),
                "0" | "false" | "f" | "no" | "n" | "off" => return Some(false),
                _ => (
                    "bool_parsing",
                    "Input should be a valid boolean, unable to interpret input",
                ),
            },
            _ => ("bool_type", "Input should be a valid boolean"),
        };
        self.refuse(name, kind, msg, None);
        None
    }
}

/// Digits with an optional sign, and zeros after an optional point.
fn parse_integer(text: &str) -> Option<i128> {
    let (digits, zeros) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if !zeros.chars().all(|c| c == '0') {
        return None;
    }
    // longer numbers only have to be out of every range
    let longest = digits.len() - digits.trim_start_matches(['-', '+']).len() + 30;
    let negative = digits.starts_with('-');
    match digits.get(longest..) {
        Some(rest) if rest.chars().all(|c| c.is_ascii_digit()) => {
            digits.get(..longest)?.parse::<i128>().ok()?;
            Some(if negative { i128::MIN } else { i128::MAX })
        }
        Some(_) => None,
        None => digits.parse().ok(),
    }
}

#[expect(
    clippy::as_conversions,
    reason = "a float's only way to an integer; it saturates"
)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole, and saturating is what is wanted"
)]
fn whole(float: f64) -> Option<i128> {
    (float.fract() == 0.0).then_some(float as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integer(value: &Value) -> Result<i64, String> {
        let body = json!({ "n": value });
        let mut fields = Fields::of_body(&body).unwrap();
        let number = fields.integer("n", 5, 1, 100);
        match fields.finish() {
            Ok(()) => Ok(number),
            Err(Error::Invalid(faults)) => Err(faults[0].kind.to_owned()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn integers_are_converted_like_the_original() {
        for value in [
            json!(7),
            json!(7.0),
            json!("7"),
            json!(" +7 "),
            json!("7.0"),
        ] {
            assert_eq!(integer(&value), Ok(7), "{value}");
        }
        assert_eq!(integer(&json!(true)), Ok(1));
        for (value, kind) in [
            (json!("x"), "int_parsing"),
            (json!("7.5"), "int_parsing"),
            (json!(""), "int_parsing"),
            (json!(7.5), "int_from_float"),
            (json!(null), "int_type"),
            (json!([]), "int_type"),
            (json!(0), "greater_than_equal"),
            (json!(101), "less_than_equal"),
            (json!(1e300), "less_than_equal"),
            (json!("9".repeat(500)), "less_than_equal"),
            (json!(format!("-{}", "9".repeat(500))), "greater_than_equal"),
        ] {
            assert_eq!(integer(&value), Err(kind.to_owned()), "{value}");
        }
    }

    #[test]
    fn every_fault_of_a_body_is_reported_at_once() {
        let body = json!({"id": "a b", "name": " ", "flag": "maybe"});
        let mut fields = Fields::of_body(&body).unwrap();
        fields.id("id");
        fields.trimmed("name");
        fields.boolean("flag");
        fields.uuid("client_id");

        let Err(Error::Invalid(faults)) = fields.finish() else {
            panic!("no fault")
        };

        let kinds: Vec<_> = faults.iter().map(|fault| fault.kind).collect();
        assert_eq!(
            kinds,
            [
                "string_pattern_mismatch",
                "string_too_short",
                "bool_parsing",
                "missing"
            ]
        );
    }
}
