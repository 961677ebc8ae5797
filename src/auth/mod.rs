//! Who may do what: scopes, client secrets, access tokens, API keys.

pub mod api_keys;
pub mod foreign;
pub mod scopes;
pub mod secrets;
pub mod slow_logins;
pub mod tokens;
