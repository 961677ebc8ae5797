//! What the OpenAPI document needs beyond the annotations of the routes, said once for all of them.

use super::routes::{Need, ROUTES};
use serde_json::json;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, SchemaType, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, OpenApi, PathItem, Ref, RefOr, Response, ResponseBuilder, Schema};

/// Where the schema of an error is.
const ERROR: &str = "#/components/schemas/Error";

/// What an unknown query parameter ends in, on any route.
const INVALID: (&str, &str) = ("422", "The request does not have the right form");

/// What reading a body can end in, beside 422.
const BODY_REFUSALS: [(&str, &str); 4] = [
    ("400", "The body could not be read"),
    ("408", "The body did not arrive in time"),
    ("413", "The body, or a message in it, is too large"),
    ("415", "The body is encoded, such as with gzip"),
];

/// Complete a document that was collected from the routes.
pub fn complete(document: &mut OpenApi) {
    if let Some(components) = &mut document.components {
        for schema in components.schemas.values_mut() {
            free_objects(schema);
        }
    }
    let components = document.components.clone().unwrap_or_default();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            operation.security = security(method, path);
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    name_object(path, parameter);
                }
            }
            add_refusal(operation, INVALID);
            if operation.request_body.is_some() {
                for refusal in BODY_REFUSALS {
                    add_refusal(operation, refusal);
                }
            }
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response {
                    for content in response.content.values_mut() {
                        if let RefOr::T(Content {
                            schema: Some(schema),
                            ..
                        }) = content
                        {
                            free_objects(schema);
                        }
                    }
                    describe(status, response, &components);
                }
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                for content in body.content.values_mut() {
                    if let RefOr::T(Content {
                        schema: Some(schema),
                        ..
                    }) = content
                    {
                        free_objects(schema);
                    }
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", &mut item.get),
        ("POST", &mut item.post),
        ("PUT", &mut item.put),
        ("PATCH", &mut item.patch),
        ("DELETE", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The scopes that a route needs where authentication is on; none of a public one.
fn security(method: &str, path: &str) -> Option<Vec<SecurityRequirement>> {
    let route = ROUTES
        .iter()
        .find(|route| (route.method, route.path) == (method, path))?;
    let scope = |need: &Need| format!("{}:{}", need.resource, need.action);
    let scopes = route.needs.iter().map(scope);
    let token = SecurityRequirement::new::<_, _, String>("oauth2", scopes);
    let key = SecurityRequirement::new::<_, [&str; 0], &str>("api_key", []);
    Some(vec![SecurityRequirement::default(), token, key])
}

/// An object without a list of fields may have any: payloads, filters.
fn free_objects(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else {
        return;
    };
    match schema {
        Schema::Object(object) => {
            let is_object = match &object.schema_type {
                SchemaType::Type(only) => *only == Type::Object,
                SchemaType::Array(types) => types.contains(&Type::Object),
                SchemaType::AnyValue => false,
            };
            if is_object && object.properties.is_empty() && object.additional_properties.is_none() {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(true)));
            }
            for property in object.properties.values_mut() {
                tell_default(property);
                free_objects(property);
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                free_objects(items);
            }
        }
        Schema::OneOf(one) => one.items.iter_mut().for_each(free_objects),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(free_objects),
        Schema::AllOf(all) => all.items.iter_mut().for_each(free_objects),
        _ => {}
    }
}

/// A default is told in words: generators of types take a field with a default for one that is
/// always there, which is not so in a request.
fn tell_default(property: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = property
        && let Some(default) = object.default.take()
    {
        let description = object.description.take().unwrap_or_default();
        object.description = Some(
            format!("{description} Default: {default}.")
                .trim()
                .to_owned(),
        );
    }
}

/// What the ids of a path name, with the id that the examples of the bodies use.
fn name_object(path: &str, parameter: &mut Parameter) {
    let (description, example) = match path.split('/').nth(1) {
        _ if parameter.name == "message_id" => (
            "The id of the message.",
            "01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e",
        ),
        _ if parameter.name != "id" => return,
        Some("topics") => ("The id of the topic.", "user-events"),
        Some("subscriptions") => ("The id of the subscription.", "user-processor"),
        Some("snapshots") => ("The id of the snapshot.", "before-release"),
        Some("clients") => (
            "The id of the client.",
            "01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e",
        ),
        Some("messages") => (
            "The id of the message.",
            "01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e",
        ),
        Some("jobs") => ("The id of the job.", "01997ca3-5c2e-7d49-8a6b-0f5f7f1c2d3e"),
        _ => return,
    };
    *parameter = ParameterBuilder::from(parameter.clone())
        .description(Some(description))
        .example(Some(json!(example)))
        .build();
}

fn add_refusal(operation: &mut Operation, (status, description): (&str, &str)) {
    let responses = &mut operation.responses.responses;
    if !responses.contains_key(status) {
        let content = Content::new(Some(RefOr::Ref(Ref::new(ERROR))));
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/json", content);
        responses.insert(status.to_owned(), RefOr::T(response.build()));
    }
}

/// An answer without a description of its own is described by what it holds.
fn describe(status: &str, response: &mut Response, components: &utoipa::openapi::Components) {
    if !response.description.is_empty() {
        return;
    }
    let schema = response.content.values().find_map(|content| match content {
        RefOr::T(Content {
            schema: Some(RefOr::Ref(reference)),
            ..
        }) => components
            .schemas
            .get(reference.ref_location.rsplit('/').next()?),
        _ => None,
    });
    let held = match schema {
        Some(RefOr::T(Schema::Object(object))) => object.description.clone(),
        _ => None,
    };
    response.description = held.unwrap_or_else(|| match status {
        "204" => "It is done; there is no more to say.".to_owned(),
        _ => "It is done.".to_owned(),
    });
}
