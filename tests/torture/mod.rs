//! The checker of `make torture`: each kind of violation, made by hand, is found, and nothing else is.

#[path = "../../benches/torture/checker/mod.rs"]
mod checker;
#[path = "../../benches/torture/history.rs"]
mod history;
#[path = "../../benches/torture/story.rs"]
mod story;
#[path = "../../benches/torture/world.rs"]
mod world;

mod crashes;
mod keys;
mod leases;
mod messages;
mod operators;
mod order;
mod pushes;
mod script;
mod service;
mod stories;
mod streams;
mod takes;
mod transactions;
