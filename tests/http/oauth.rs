//! `/oauth/token` and scopes.
