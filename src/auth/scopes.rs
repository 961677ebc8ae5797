//! Scopes: `*`, `resource:action` or `resource:action:object`, separated by spaces.

/// Every `resource:action`, and whether it may name one object. Creating and listing name none, so
/// an object scope on them could never match.
const ACTIONS: &[(&str, &str, bool)] = &[
    ("topics", "create", false),
    ("topics", "read", true),
    ("topics", "update", true),
    ("topics", "delete", true),
    ("topics", "publish", true),
    ("subscriptions", "create", false),
    ("subscriptions", "read", true),
    ("subscriptions", "update", true),
    ("subscriptions", "delete", true),
    ("subscriptions", "consume", true),
    ("clients", "create", false),
    ("clients", "update", true),
    ("clients", "read", true),
    ("clients", "delete", true),
];

/// Check that every scope can match a request.
///
/// # Errors
/// A sentence that names the first scope that cannot.
pub fn validate(scopes: &str) -> Result<(), String> {
    scopes
        .split_whitespace()
        .find(|scope| !is_valid(scope))
        .map_or(Ok(()), |scope| Err(format!("Invalid scope {scope}")))
}

fn is_valid(scope: &str) -> bool {
    if scope == "*" {
        return true;
    }
    let parts: Vec<&str> = scope.split(':').collect();
    match parts.as_slice() {
        [resource, action] => ACTIONS
            .iter()
            .any(|known| (known.0, known.1) == (*resource, *action)),
        [resource, action, object] => {
            !object.is_empty() && ACTIONS.contains(&(*resource, *action, true))
        }
        _ => false,
    }
}

/// Whether granted scopes allow an action, on one object if the request names one.
#[must_use]
pub fn allow(granted: &str, resource: &str, action: &str, object: Option<&str>) -> bool {
    granted.split_whitespace().any(|scope| {
        let mut parts = scope.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("*"), None, None) => true,
            (Some(r), Some(a), wanted) => {
                r == resource && a == action && (wanted.is_none() || wanted == object)
            }
            _ => false,
        }
    })
}

/// Whether granted scopes allow an action on at least one object.
#[must_use]
pub fn allow_some(granted: &str, resource: &str, action: &str) -> bool {
    granted.split_whitespace().any(|scope| {
        let mut parts = scope.splitn(3, ':');
        match (parts.next(), parts.next()) {
            (Some("*"), None) => true,
            (Some(r), Some(a)) => r == resource && a == action,
            _ => false,
        }
    })
}

/// Whether every requested scope is covered by what a client has been granted.
#[must_use]
pub fn cover(granted: &str, requested: &str) -> bool {
    requested.split_whitespace().all(|scope| {
        let mut parts = scope.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("*"), None, None) => granted.split_whitespace().any(|scope| scope == "*"),
            (Some(resource), Some(action), object) => {
                is_valid(scope) && allow(granted, resource, action, object)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_global_and_object_scope_that_can_match_is_valid() {
        for scope in [
            "*",
            "topics:create",
            "subscriptions:consume",
            "clients:delete",
        ] {
            assert_eq!(validate(scope), Ok(()), "{scope}");
        }
        assert_eq!(validate("topics:publish:orders clients:read:1"), Ok(()));
    }

    #[test]
    fn scopes_that_can_never_match_are_refused() {
        for scope in [
            "topic:create",
            "topics",
            "topics:",
            "topics:creates",
            "topics:create:x",
            "subscriptions:create:x",
            "clients:create:x",
            "topics:read:",
            "topics:read:a:b",
            "**",
        ] {
            assert_eq!(
                validate(scope),
                Err(format!("Invalid scope {scope}")),
                "{scope}"
            );
        }
    }

    #[test]
    fn an_object_scope_allows_only_its_object() {
        assert!(allow("*", "topics", "read", None));
        assert!(allow("topics:read", "topics", "read", Some("a")));
        assert!(allow("topics:read:a", "topics", "read", Some("a")));
        assert!(!allow("topics:read:a", "topics", "read", Some("b")));
        assert!(!allow("topics:read:a", "topics", "read", None));
        assert!(!allow("topics:read", "topics", "delete", Some("a")));
        assert!(!allow("", "topics", "read", None));
    }

    #[test]
    fn any_object_will_do_where_the_body_names_it() {
        assert!(allow_some("*", "topics", "publish"));
        assert!(allow_some("topics:publish", "topics", "publish"));
        assert!(allow_some(
            "topics:read topics:publish:a",
            "topics",
            "publish"
        ));
        assert!(!allow_some("topics:read:a", "topics", "publish"));
        assert!(!allow_some("", "topics", "publish"));
    }

    #[test]
    fn a_narrower_request_is_covered_and_a_wider_one_is_not() {
        assert!(cover("*", "topics:read clients:read:1"));
        assert!(cover("topics:read", "topics:read:a"));
        assert!(!cover("topics:read:a", "topics:read"));
        assert!(!cover("topics:read", "*"));
        assert!(!cover("*", "nonsense"));
    }
}
