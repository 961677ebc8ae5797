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
use crate::doors::extract::query_pairs;
use crate::error::{Error, Fault, MAX_FAULTS, Part, Rule};

/// Where parameters that nobody knows must be ignored: RFC 6749, section 3.2.
const TOKEN_ENDPOINT: &str = "/oauth/token";

/// The parameters that each route has.
#[derive(Clone, Debug)]
pub struct KnownParameters(Arc<HashMap<String, HashMap<Method, Route>>>);

#[derive(Debug)]
struct Route {
    parameters: Vec<String>,
    is_public: bool,
}

impl KnownParameters {
    /// Those of a document.
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter();
        let routes = paths.map(|(path, item)| {
            let operations = operations(item);
            let of_path = operations.map(|(method, operation)| (method, Route::of(operation)));
            (path.clone(), of_path.collect())
        });
        Self(Arc::new(routes.collect()))
    }

    /// Refuse what the route does not have, of a route that has scopes only after these were checked.
    ///
    /// # Errors
    /// 422 naming them.
    pub fn check(&self, request: &mut Request) -> Result<(), Error> {
        let Some((faults, route)) = self.unknown(request) else {
            return Ok(());
        };
        if route.is_public {
            return Err(Error::Invalid(faults));
        }
        let refused = AfterScope(Error::Invalid(faults));
        request.extensions_mut().insert(refused);
        Ok(())
    }

    /// What the route does not have, if there is any.
    fn unknown(&self, request: &Request) -> Option<(Vec<Fault>, &Route)> {
        let query = request.uri().query().filter(|query| !query.is_empty())?;
        let path = request.extensions().get::<MatchedPath>()?.as_str();
        let method = match *request.method() {
            Method::HEAD => &Method::GET,
            ref method => method,
        };
        let route = self.0.get(path)?.get(method)?;
        // most are known as they stand: the handler reads the query, once
        let has = |name: &str| route.parameters.iter().any(|known| known == name);
        if path == TOKEN_ENDPOINT
            || query
                .split('&')
                .all(|pair| has(pair.split('=').next().unwrap_or_default()))
        {
            return None;
        }
        // what cannot be read is told by who reads it
        let pairs = query_pairs(request.uri()).unwrap_or_default();
        let faults: Vec<_> = pairs
            .into_iter()
            .filter(|(name, _)| !has(name))
            .take(MAX_FAULTS)
            .map(|(name, value)| Fault {
                part: Part::Query,
                path: vec![name.as_str().into()],
                rule: Rule::Known,
                given: json!(value),
            })
            .collect();
        (!faults.is_empty()).then_some((faults, route))
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
