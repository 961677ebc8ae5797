//! What the OpenAPI documents of all doors need of their schemas beyond the annotations of the routes.

use utoipa::Modify;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, PathItem, RefOr, Schema};

/// Complete the schemas of a document that was collected from the routes.
pub fn complete(document: &mut OpenApi) {
    if let Some(components) = &mut document.components {
        components.schemas.values_mut().for_each(free_objects);
    }
    for item in document.paths.paths.values_mut() {
        for (_, operation) in operations(item) {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    response.content.values_mut().for_each(free_content);
                }
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                body.content.values_mut().for_each(free_content);
            }
        }
    }
}

/// Every route wants to be shown this, unless it says otherwise.
pub fn secure(document: &mut OpenApi, name: &str, scheme: SecurityScheme) {
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(name, scheme);
    let none: [&str; 0] = [];
    document.security = Some(vec![SecurityRequirement::new(name, none)]);
}

/// Every route wants `Authorization: Bearer`.
pub struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        secure(document, "bearer", bearer);
    }
}

fn free_content(content: &mut RefOr<Content>) {
    if let RefOr::T(Content {
        schema: Some(schema),
        ..
    }) = content
    {
        free_objects(schema);
    }
}

/// The operations of a path, by their methods.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
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
