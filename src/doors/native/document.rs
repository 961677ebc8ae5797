//! What the OpenAPI document needs beyond the annotations of the routes, said once for all of them.

use super::routes::{Need, ROUTES};
use crate::doors::schemas::{self, operations};
use serde_json::json;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};

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
    schemas::complete(document);
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
                    describe(status, response, &components);
                }
            }
        }
    }
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
