//! Seeded random filters, payloads and attributes: what the compiled filter says, held against a small evaluator
//! of the language in memory.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use sqlx::types::Json;

use super::database;

/// Few, so that filters and payloads often meet.
const FIELDS: &[&str] = &["a", "b", "c"];
const TEXTS: &[&str] = &[
    "", "a", "ab", "b", "a.b", "axb", "$", "^a", "\\", "\"", "a\n", "é", "1", "true",
];
/// 1 and 1.0 are one number in two spellings.
const NUMBERS: &[&str] = &["-1.5", "-1", "0", "1", "1.0", "2", "2.0", "2.5", "10"];

/// A random case.
struct Case {
    payload: Value,
    attributes: Option<Value>,
    filter: Value,
}

impl Case {
    fn random(random: &mut StdRng) -> Self {
        let mut payload = object(random, 3);
        if random.random_bool(0.2) {
            payload["attributes"] = value(random, 2);
        }
        let attributes = random.random_bool(0.7).then(|| {
            let pairs = FIELDS.iter().map(|field| (*field, pick(random, TEXTS)));
            pairs.collect()
        });
        let mut filter = filter(random, 2);
        if random.random_bool(0.3) {
            filter["attributes"] = self::filter(random, 0);
        } else if random.random_bool(0.1) {
            filter["attributes"] = json!([wanted(random), scalar(random)]);
        }
        Self {
            payload,
            attributes,
            filter,
        }
    }

    fn matches(&self) -> bool {
        let mut fields = self.filter.as_object().unwrap().clone();
        let none = Map::new();
        let attributes = self.attributes.as_ref().and_then(Value::as_object);
        let of_attributes = match fields.get("attributes") {
            Some(Value::Object(wanted)) => {
                let matched = fields_match(wanted, attributes.unwrap_or(&none));
                fields.remove("attributes");
                matched
            }
            _ => true,
        };
        of_attributes && fields_match(&fields, self.payload.as_object().unwrap())
    }
}

fn fields_match(fields: &Map<String, Value>, object: &Map<String, Value>) -> bool {
    fields.iter().all(|(name, wanted)| {
        let value = object.get(name);
        match wanted {
            Value::Object(fields) => {
                let objects: Vec<_> = elements(value).filter_map(Value::as_object).collect();
                match objects.as_slice() {
                    [] => fields_match(fields, &Map::new()),
                    objects => objects.iter().any(|object| fields_match(fields, object)),
                }
            }
            wanted => elements(Some(wanted)).any(|wanted| value_matches(wanted, value)),
        }
    })
}

/// Those of an array, or the value itself.
fn elements(value: Option<&Value>) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Some(Value::Array(elements)) => Box::new(elements.iter()),
        value => Box::new(value.into_iter()),
    }
}

fn value_matches(wanted: &Value, value: Option<&Value>) -> bool {
    match wanted.get("exists") {
        Some(exists) => exists == &json!(value.is_some()),
        None => elements(value).any(|element| element_matches(wanted, element)),
    }
}

fn element_matches(wanted: &Value, element: &Value) -> bool {
    let Some((operator, operand)) = wanted.as_object().and_then(|wanted| wanted.iter().next())
    else {
        return equals(wanted, element);
    };
    let affix = operand.as_str().unwrap_or_default();
    match operator.as_str() {
        "prefix" => element.as_str().is_some_and(|text| text.starts_with(affix)),
        "suffix" => element.as_str().is_some_and(|text| text.ends_with(affix)),
        "anything-but" => !elements(Some(operand)).any(|listed| equals(listed, element)),
        "numeric" => element.as_f64().is_some_and(|number| {
            operand.as_array().unwrap().chunks(2).all(|pair| {
                let bound = pair[1].as_f64().unwrap();
                match pair[0].as_str().unwrap() {
                    "=" => number == bound,
                    "<" => number < bound,
                    "<=" => number <= bound,
                    ">" => number > bound,
                    ">=" => number >= bound,
                    other => panic!("{other}"),
                }
            })
        }),
        other => panic!("{other}"),
    }
}

/// JSON equality: 1 equals 1.0.
fn equals(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    *from.choose(random).unwrap()
}

fn number(random: &mut StdRng) -> Value {
    serde_json::from_str(pick(random, NUMBERS)).unwrap()
}

fn scalar(random: &mut StdRng) -> Value {
    match random.random_range(0..5) {
        0 | 1 => json!(pick(random, TEXTS)),
        2 | 3 => number(random),
        _ => json!(random.random_bool(0.5)),
    }
}

fn value(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..10) {
        0 => Value::Null,
        1 | 2 if depth > 0 => (0..random.random_range(0..4))
            .map(|_| value(random, depth - 1))
            .collect(),
        3..=5 if depth > 0 => object(random, depth - 1),
        _ => scalar(random),
    }
}

fn object(random: &mut StdRng, depth: u32) -> Value {
    let mut fields = Map::new();
    for field in FIELDS {
        if random.random_bool(0.7) {
            fields.insert((*field).to_owned(), value(random, depth));
        }
    }
    Value::Object(fields)
}

fn wanted(random: &mut StdRng) -> Value {
    match random.random_range(0..10) {
        0 => json!({"prefix": pick(random, TEXTS)}),
        1 => json!({"suffix": pick(random, TEXTS)}),
        2 => json!({"exists": random.random_bool(0.5)}),
        3 | 4 => {
            let listed = (0..random.random_range(1..4)).map(|_| scalar(random));
            json!({"anything-but": listed.collect::<Vec<_>>()})
        }
        5 | 6 => {
            let pairs = (0..random.random_range(1..3)).flat_map(|_| {
                let comparison = pick(random, &["=", "<", "<=", ">", ">="]);
                [json!(comparison), number(random)]
            });
            json!({"numeric": pairs.collect::<Vec<_>>()})
        }
        _ => scalar(random),
    }
}

fn filter(random: &mut StdRng, depth: u32) -> Value {
    let mut fields = Map::new();
    for _ in 0..random.random_range(1..3) {
        let inside = if depth > 0 && random.random_bool(0.4) {
            filter(random, depth - 1)
        } else {
            (0..random.random_range(0..7))
                .map(|_| wanted(random))
                .collect()
        };
        fields.insert(pick(random, FIELDS).to_owned(), inside);
    }
    Value::Object(fields)
}

#[tokio::test]
async fn random_filters_match_as_their_language_says() {
    random_filters_match(500).await;
}

#[tokio::test]
#[ignore = "make test-full"]
async fn many_random_filters_match_as_their_language_says() {
    random_filters_match(5_000).await;
}

async fn random_filters_match(messages: usize) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let cases: Vec<Case> = (0..messages).map(|_| Case::random(&mut random)).collect();
    let payloads: Vec<_> = cases.iter().map(|case| Json(&case.payload)).collect();
    let filters: Vec<_> = cases.iter().map(|case| Json(&case.filter)).collect();
    let attributes: Vec<_> = cases
        .iter()
        .map(|case| case.attributes.as_ref().map(Json))
        .collect();
    let (_database, mut connection) = database().await;

    let answers: Vec<(bool, Option<bool>, Option<bool>)> = sqlx::query_as(
        "select pubsub.matches_filter(c.payload, c.filter, c.attributes), (
             select bool_and(e.matches)
             from pubsub.explain_filter(c.payload, c.attributes, c.filter) e
         ), (
             select (pubsub.match_objects(array[c.payload], x.fields))[1]
                 and (x.attributes is null or (pubsub.match_objects(
                     array[coalesce(c.attributes, '{}')], x.attributes))[1])
             from (
                 select case when jsonb_typeof(c.filter -> 'attributes') = 'object'
                     then c.filter - 'attributes' else c.filter end,
                     case when jsonb_typeof(c.filter -> 'attributes') = 'object'
                     then c.filter -> 'attributes' end
             ) x (fields, attributes)
         ) \
         from unnest($1::jsonb[], $2::jsonb[], $3::jsonb[]) \
         with ordinality c (payload, filter, attributes, position) order by c.position",
    )
    .bind(payloads)
    .bind(filters)
    .bind(attributes)
    .fetch_all(&mut connection)
    .await
    .unwrap();

    assert_eq!(answers.len(), messages);
    for (case, (matched, explained, in_sets)) in cases.iter().zip(&answers) {
        let Case {
            payload,
            attributes,
            filter,
        } = case;
        let what = format!("seed {seed}: {filter} on {payload} {attributes:?}");
        assert_eq!(*matched, case.matches(), "{what}");
        assert_eq!(*explained, Some(*matched), "explained, {what}");
        assert_eq!(*in_sets, Some(*matched), "in sets, {what}");
    }
    // a run in which nearly nothing matches, or everything, would prove little
    let share = answers.iter().filter(|(matched, ..)| *matched).count() * 100 / messages;
    assert!((10..90).contains(&share), "seed {seed}: {share} % match");
}
