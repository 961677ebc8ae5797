//! Query parameters that a route does not have are refused: a typo must not pass in silence. Which
//! it has, the OpenAPI document says.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use serde_json::json;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use crate::doors::caller::AfterScope;
use crate::doors::native::extract::query_pairs;
use crate::error::{Error, Fault, MAX_FAULTS, Part, Rule};

/// Where parameters that nobody knows must be ignored: RFC 6749, section 3.2.
const TOKEN_ENDPOINT: &str = "/oauth/token";

/// The parameters that each route has.
#[derive(Clone, Debug)]
pub struct KnownParameters(Arc<HashMap<(Method, String), Route>>);

#[derive(Debug)]
struct Route {
    parameters: Vec<String>,
    is_public: bool,
}

impl KnownParameters {
    /// Those of a document.
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        let mut routes = HashMap::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                routes.insert((method, path.clone()), Route::of(operation));
            }
        }
        Self(Arc::new(routes))
    }

    /// Refuse what the route does not have, of a route that has scopes only after these were checked.
    ///
    /// # Errors
    /// 422 naming them.
    pub fn check(&self, request: &mut Request) -> Result<(), Error> {
        if request.uri().query().is_some_and(|query| !query.is_empty())
            && let Some((error, is_public)) = refusal(self, request)
        {
            if is_public {
                return Err(error);
            }
            request.extensions_mut().insert(AfterScope(error));
        }
        Ok(())
    }
}

impl Route {
    fn of(operation: &Operation) -> Self {
        let parameters = operation.parameters.iter().flatten();
        Self {
            parameters: parameters
                .filter_map(|parameter| match parameter {
                    RefOr::T(parameter) => Some(parameter),
                    RefOr::Ref(_) => None,
                })
                .filter(|parameter| parameter.parameter_in == ParameterIn::Query)
                .map(|parameter| parameter.name.clone())
                .collect(),
            is_public: operation.security.is_none(),
        }
    }
}

fn refusal(known: &KnownParameters, request: &Request) -> Option<(Error, bool)> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let method = match *request.method() {
        Method::HEAD => Method::GET,
        ref method => method.clone(),
    };
    let route = known.0.get(&(method, path.to_owned()))?;
    if path == TOKEN_ENDPOINT {
        return None;
    }
    // what cannot be read is told by who reads it
    let pairs = query_pairs(request.uri()).unwrap_or_default();
    let unknown = pairs
        .into_iter()
        .filter(|(name, _)| !route.parameters.contains(name));
    let faults: Vec<_> = unknown
        .take(MAX_FAULTS)
        .map(|(name, value)| Fault {
            part: Part::Query,
            path: vec![name.as_str().into()],
            rule: Rule::Known,
            given: json!(value),
        })
        .collect();
    (!faults.is_empty()).then_some((Error::Invalid(faults), route.is_public))
}

fn operations(item: &utoipa::openapi::PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}
