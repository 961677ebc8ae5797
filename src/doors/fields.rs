//! Checking request bodies field by field, with the errors and the lax conversions of the Python
//! original: all faults of a request are reported at once, each with its place and the value given.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::doors::given;
use crate::error::{Count, Error, Fault, Form, MAX_FAULTS, Part, Rule, Step};

/// Characters of topic and subscription ids, as the pattern that errors show.
pub const ID_PATTERN: &str = "^[a-zA-Z0-9-._]+$";
/// Most characters of an id.
pub const ID_MAX_LENGTH: usize = 128;
/// Most characters of other text, such as a client's name.
pub const TEXT_MAX_LENGTH: usize = 1024;

/// The fields of a body or query, and the faults found in them so far. A getter of a faulty field
/// returns a placeholder; [`Fields::finish`] then refuses the request. What nobody asked for is a
/// fault of a body too: a typo must not pass in silence.
pub struct Fields<'a> {
    part: Part,
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
            let fault = Fault::body(Vec::new(), Rule::Is(Form::Fields), given::value(body));
            return Err(Error::Invalid(vec![fault]));
        };
        Ok(Self {
            part: Part::Body,
            values,
            known: Vec::new(),
            faults: Vec::new(),
        })
    }

    /// The parameters of a query, all of them strings.
    #[must_use]
    pub fn of_query(values: &'a Map<String, Value>) -> Self {
        Self {
            part: Part::Query,
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
        if self.part == Part::Body && self.known.len() < self.values.len() {
            let values = self.values;
            let others = values
                .keys()
                .filter(|name| !self.known.contains(&name.as_str()));
            let room = MAX_FAULTS.saturating_sub(self.faults.len());
            for name in others.take(room).collect::<Vec<_>>() {
                self.faults.push(self.unknown(name));
            }
        }
        self.finish_ignoring_others()
    }

    fn unknown(&self, name: &str) -> Fault {
        let given = self.values.get(name).map(given::value);
        self.fault(vec![name.into()], Rule::Known, given.unwrap_or_default())
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

    fn fault(&self, path: Vec<Step>, rule: Rule, given: Value) -> Fault {
        Fault {
            part: self.part,
            path,
            rule,
            given,
        }
    }

    /// Note a fault of a field.
    pub fn refuse(&mut self, name: &str, rule: Rule) {
        let given = self.values.get(name).map(given::value).unwrap_or_default();
        self.faults.push(self.fault(vec![name.into()], rule, given));
    }

    /// Note a fault within a field.
    pub fn refuse_in(&mut self, path: &[&str], rule: Rule, given: Value) {
        let path = path.iter().map(|step| (*step).into()).collect();
        self.faults.push(self.fault(path, rule, given));
    }

    /// What a part of the body is read as by another parser, whose faults lie within this field.
    pub fn inside<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.optional(name).map(parse).transpose() {
            Err(Error::Invalid(faults)) => {
                let place: [Step; 1] = [name.into()];
                let room = MAX_FAULTS.saturating_sub(self.faults.len());
                let inside = faults.into_iter().map(|fault| fault.within(&place));
                self.faults.extend(inside.take(room));
                Ok(None)
            }
            other => other,
        }
    }

    /// Note a fault of a field that no common rule is about.
    pub fn refuse_as(&mut self, name: &str, text: impl Into<String>) {
        self.refuse(name, Rule::Refused(text.into()));
    }

    /// The value of a field that must be there; null is a value.
    pub fn required(&mut self, name: &'static str) -> Option<&'a Value> {
        let value = self.get(name);
        if value.is_none() {
            let given = match self.part {
                Part::Body => given::object(self.values),
                _ => Value::Null,
            };
            let fault = self.fault(vec![name.into()], Rule::Required, given);
            self.faults.push(fault);
        }
        value
    }

    /// Text of a length from `min` to `max` characters, without NUL.
    pub fn text(&mut self, name: &'static str, min: usize, max: usize) -> String {
        let Some(value) = self.required(name) else {
            return String::new();
        };
        let Some(text) = value.as_str() else {
            self.refuse(name, Rule::Is(Form::Text));
            return String::new();
        };
        let length = text.chars().count();
        if length > max {
            self.refuse(name, Rule::AtMost(Count::Characters, max, None));
        } else if length < min {
            self.refuse(name, Rule::AtLeast(Count::Characters, min, None));
        } else if text.contains('\0') {
            self.refuse_as(name, "NUL is not allowed");
        }
        text.to_owned()
    }

    /// Text with the surrounding space removed, of at least one character.
    pub fn trimmed(&mut self, name: &'static str) -> String {
        let text = self.text(name, 0, TEXT_MAX_LENGTH).trim().to_owned();
        if text.is_empty() && self.values.get(name).is_some_and(Value::is_string) {
            self.refuse(name, Rule::AtLeast(Count::Characters, 1, None));
        }
        text
    }

    /// The id of a topic or subscription.
    pub fn id(&mut self, name: &'static str) -> String {
        let before = self.faults.len();
        let text = self.text(name, 0, ID_MAX_LENGTH);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if self.faults.len() == before && (text.is_empty() || !text.chars().all(fits)) {
            self.refuse(name, Rule::Matches(ID_PATTERN));
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
                self.refuse(name, Rule::Reads(Form::Uuid, Some(error.to_string())));
                Uuid::nil()
            }
            None => {
                self.refuse(name, Rule::Is(Form::Uuid));
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
            self.refuse(name, Rule::Is(Form::List));
            return Vec::new();
        };
        let mut ids = Vec::with_capacity(values.len());
        for (position, value) in values.iter().enumerate() {
            match value.as_str().map(Uuid::parse_str) {
                Some(Ok(id)) => ids.push(id),
                _ if self.faults.len() >= MAX_FAULTS => break,
                _ => {
                    let path = vec![name.into(), position.into()];
                    let rule = Rule::Reads(Form::Uuid, None);
                    let fault = self.fault(path, rule, given::value(value));
                    self.faults.push(fault);
                }
            }
        }
        ids
    }

    /// A list of at most so many texts.
    pub fn texts(&mut self, name: &'static str, max: usize) -> Vec<String> {
        let Some(value) = self.required(name) else {
            return Vec::new();
        };
        let Some(values) = value.as_array() else {
            self.refuse(name, Rule::Is(Form::List));
            return Vec::new();
        };
        if values.len() > max {
            let rule = Rule::AtMost(Count::Items, max, Some(values.len()));
            self.refuse(name, rule);
            return Vec::new();
        }
        let mut texts = Vec::with_capacity(values.len());
        for (position, value) in values.iter().enumerate() {
            match value.as_str() {
                Some(text) => texts.push(text.to_owned()),
                None if self.faults.len() >= MAX_FAULTS => break,
                None => {
                    let path = vec![name.into(), position.into()];
                    let fault = self.fault(path, Rule::Is(Form::Text), given::value(value));
                    self.faults.push(fault);
                }
            }
        }
        texts
    }

    /// A whole number from `min` to `max`, or the default: 7, 7.0, "7" and true (1) are taken.
    pub fn integer(&mut self, name: &'static str, default: i64, min: i64, max: i64) -> i64 {
        let Some(value) = self.get(name) else {
            return default;
        };
        let number = match value {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Ok(i128::from(number)),
                (None, Some(float)) => whole(float).ok_or(Rule::Whole),
                (None, None) => Err(Rule::Is(Form::Integer)),
            },
            Value::Bool(flag) => Ok(i128::from(*flag)),
            Value::String(text) => parse_integer(text).ok_or(Rule::Reads(Form::Integer, None)),
            _ => Err(Rule::Is(Form::Integer)),
        };
        match number {
            Ok(number) if number < i128::from(min) => self.refuse(name, Rule::From(min)),
            Ok(number) if number > i128::from(max) => self.refuse(name, Rule::To(max)),
            Ok(number) => return i64::try_from(number).unwrap_or(default),
            Err(rule) => self.refuse(name, rule),
        }
        default
    }

    /// A whole number that fits Postgres's `int`.
    pub fn int(&mut self, name: &'static str, default: i32, min: i32, max: i32) -> i32 {
        let number = self.integer(name, default.into(), min.into(), max.into());
        i32::try_from(number).unwrap_or(default)
    }

    /// A number from `min` to `max`, with a fraction or without, or the default.
    pub fn number(&mut self, name: &'static str, default: f64, min: f64, max: f64) -> f64 {
        let number = match self.get(name) {
            None => return default,
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        match number {
            Some(number) if (min..=max).contains(&number) => return number,
            Some(number) if !number.is_nan() => {
                self.refuse_as(name, format!("a number from {min} to {max} is needed"));
            }
            _ => self.refuse_as(name, "a number is needed"),
        }
        default
    }

    /// true or false, if given: 1, "yes", "on" and the like are taken.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let unclear = Rule::Reads(Form::Boolean, None);
        let rule = match self.get(name)? {
            Value::Bool(flag) => return Some(*flag),
            Value::Number(number) => match number.as_f64() {
                Some(1.0) => return Some(true),
                Some(0.0) => return Some(false),
                _ => unclear,
            },
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" | "yes" | "y" | "on" => return Some(true),
                "0" | "false" | "f" | "no" | "n" | "off" => return Some(false),
                _ => unclear,
            },
            _ => Rule::Is(Form::Boolean),
        };
        self.refuse(name, rule);
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
    use serde_json::json;

    use super::*;

    fn integer(value: &Value) -> Result<i64, Rule> {
        let body = json!({ "n": value });
        let mut fields = Fields::of_body(&body).unwrap();
        let number = fields.integer("n", 5, 1, 100);
        match fields.finish() {
            Ok(()) => Ok(number),
            Err(Error::Invalid(mut faults)) => Err(faults.remove(0).rule),
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
        let text = Rule::Reads(Form::Integer, None);
        for (value, rule) in [
            (json!("x"), text.clone()),
            (json!("7.5"), text.clone()),
            (json!(""), text),
            (json!(7.5), Rule::Whole),
            (json!(null), Rule::Is(Form::Integer)),
            (json!([]), Rule::Is(Form::Integer)),
            (json!(0), Rule::From(1)),
            (json!(101), Rule::To(100)),
            (json!(1e300), Rule::To(100)),
            (json!("9".repeat(500)), Rule::To(100)),
            (json!(format!("-{}", "9".repeat(500))), Rule::From(1)),
        ] {
            assert_eq!(integer(&value), Err(rule), "{value}");
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

        let rules: Vec<_> = faults.into_iter().map(|fault| fault.rule).collect();
        assert_eq!(
            rules,
            [
                Rule::Matches(ID_PATTERN),
                Rule::AtLeast(Count::Characters, 1, None),
                Rule::Reads(Form::Boolean, None),
                Rule::Required,
            ]
        );
    }
}
