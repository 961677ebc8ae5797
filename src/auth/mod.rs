//! Who may do what: scopes, client secrets, access tokens.

pub mod scopes;
pub mod secrets;
pub mod slow_logins;
pub mod tokens;
