//! `/subscriptions`.
