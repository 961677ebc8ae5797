//! Consuming and settling.
