//! Who may call what: scopes, client secrets, access tokens and the extractor that checks a caller.

pub mod caller;
pub mod routes;
pub mod scopes;
pub mod secrets;
pub mod slow_logins;
pub mod tokens;
