//! Health, metrics, docs, request ids.
