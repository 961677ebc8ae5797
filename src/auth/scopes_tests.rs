use super::*;

const CLIENT: &str = "01890000-0000-7000-8000-00000000000a";

#[test]
fn every_scope_that_can_match_is_valid() {
    let of_a_client = format!("clients:read:{CLIENT}");
    let in_capitals = format!("clients:read:{}", CLIENT.to_uppercase());
    let without_dashes = format!("clients:read:{}", CLIENT.replace('-', ""));
    let longest = format!("topics:read:{}", "x".repeat(128));
    let longest_beginning = format!("topics:read:{}*", "x".repeat(128));
    for scope in [
        "*",
        "topics:create",
        "topics:create:user-*",
        "topics:subscribe:orders",
        "subscriptions:create:team-a.*",
        "subscriptions:consume",
        "subscriptions:consume:*",
        "clients:delete",
        "clients:read:*",
        "clients:read:0189*",
        "clients:read:01890000-0*",
        &of_a_client,
        &in_capitals,
        &without_dashes,
        &longest,
        &longest_beginning,
        "topics:publish:orders topics:read",
    ] {
        assert_eq!(validate(scope), Ok(()), "{scope}");
    }
}

#[test]
fn scopes_that_can_never_match_are_refused() {
    let too_long = format!("topics:read:{}", "x".repeat(129));
    let too_long_beginning = format!("topics:read:{}*", "x".repeat(129));
    let longer_than_a_uuid = format!("clients:read:{CLIENT}0*");
    for scope in [
        "topic:create",
        "topics",
        "topics:",
        "topics:creates",
        "topics:create:",
        "clients:create:x",
        "clients:create:*",
        "topics:read:",
        "topics:read:a:b",
        "topics:read:us*er",
        "topics:read:*er",
        "topics:read:**",
        "topics:read:user?",
        "topics:read:a/b",
        "topics:read:ä",
        "subscriptions:publish:x",
        "clients:read:not-a-uuid",
        "clients:read:x*",
        "clients:read:018-*",
        &too_long,
        &too_long_beginning,
        &longer_than_a_uuid,
        "**",
        "*:*",
        "topics:*",
    ] {
        assert_eq!(
            validate(scope),
            Err(format!("Invalid scope {scope}")),
            "{scope}"
        );
        assert!(
            !allow(scope, "topics", "read", Some("user")),
            "{scope} allows something"
        );
    }
}

#[test]
fn an_object_scope_allows_only_its_object() {
    assert!(allow("*", "topics", "read", None));
    assert!(allow("topics:read", "topics", "read", Some("a")));
    assert!(allow("topics:read:a", "topics", "read", Some("a")));
    assert!(!allow("topics:read:a", "topics", "read", Some("b")));
    assert!(!allow("topics:read:a", "topics", "read", Some("ab")));
    assert!(!allow("topics:read:a", "topics", "read", None));
    assert!(!allow("topics:read", "topics", "delete", Some("a")));
    assert!(!allow("", "topics", "read", None));
}

#[test]
fn a_beginning_allows_what_begins_with_it() {
    for (id, is_allowed) in [
        ("user-", true),
        ("user-events", true),
        ("user-*", true),
        ("user", false),
        ("User-events", false),
        ("my-user-events", false),
        ("", false),
    ] {
        assert_eq!(
            allow("topics:read:user-*", "topics", "read", Some(id)),
            is_allowed,
            "{id}"
        );
    }
    assert!(allow("topics:read:*", "topics", "read", Some("any")));
    assert!(!allow("topics:read:*", "topics", "read", None));
}

#[test]
fn a_client_is_the_same_however_its_id_is_written() {
    let simple = CLIENT.replace('-', "");
    let loud = CLIENT.to_uppercase();
    for scope in [CLIENT, &simple, &loud, "01890000-*"] {
        for path in [CLIENT, &simple, &loud] {
            let granted = format!("clients:read:{scope}");
            assert!(
                allow(&granted, "clients", "read", Some(path)),
                "{granted} {path}"
            );
        }
    }
}

#[test]
fn any_object_will_do_where_it_is_not_known_yet() {
    assert!(allow_some("*", "topics", "publish"));
    assert!(allow_some("topics:publish", "topics", "publish"));
    assert!(allow_some(
        "topics:read topics:publish:a",
        "topics",
        "publish"
    ));
    assert!(!allow_some("topics:read:a", "topics", "publish"));
    assert!(!allow_some("topics:publish:", "topics", "publish"));
    assert!(!allow_some("", "topics", "publish"));
}

#[test]
fn objects_are_those_of_the_action_or_all() {
    let read = |granted| objects(granted, "topics", "read");
    assert_eq!(read("topics:read:a topics:read"), None);
    assert_eq!(read("topics:read:a *"), None);
    assert_eq!(
        read("topics:read:a topics:read:b-* topics:publish:c"),
        Some(vec!["a".to_owned(), "b-*".to_owned()])
    );
    assert_eq!(read("topics:publish"), Some(Vec::new()));
}

#[test]
fn a_narrower_scope_is_covered_and_a_wider_one_is_beyond() {
    for (granted, wanted, beyond_it) in [
        ("*", "topics:read clients:create *", None),
        ("topics:read", "topics:read:a topics:read:b-*", None),
        ("topics:read:a", "topics:read", Some("topics:read")),
        ("topics:read:*", "topics:read", Some("topics:read")),
        ("topics:read", "*", Some("*")),
        ("topics:read:user-*", "topics:read:user-a", None),
        ("topics:read:user-*", "topics:read:user-*", None),
        ("topics:read:user-*", "topics:read:user-a*", None),
        (
            "topics:read:user-*",
            "topics:read:use*",
            Some("topics:read:use*"),
        ),
        ("topics:read:user-*", "topics:read:*", Some("topics:read:*")),
        ("topics:read:a", "topics:read:a*", Some("topics:read:a*")),
        (
            "topics:read topics:publish:a",
            "topics:read topics:publish:a topics:publish:b",
            Some("topics:publish:b"),
        ),
        ("", "topics:read", Some("topics:read")),
        ("", "", None),
        ("", "nonsense topics:read:", None),
    ] {
        assert_eq!(beyond(granted, wanted), beyond_it, "{granted} | {wanted}");
    }
}
