//! The review surface: golden files.
