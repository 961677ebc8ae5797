//! What a key may do, told to its owner.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::{Caller, Queue};
use super::openapi::Errors;
use crate::app::App;
use crate::config::pyqueue::keys::Permission;
use crate::error::Error;

/// What a key may do with a queue.
#[derive(Serialize, ToSchema)]
pub(super) struct Rights {
    /// See and receive messages.
    can_read: bool,
    /// Add and change messages.
    can_write: bool,
    /// Delete messages one by one.
    can_delete: bool,
    /// Delete all messages.
    can_manage: bool,
}

impl Rights {
    fn of(permissions: &BTreeSet<Permission>) -> Self {
        let has = |permission| permissions.contains(&permission);
        Self {
            can_read: has(Permission::Read),
            can_write: has(Permission::Write),
            can_delete: has(Permission::Delete),
            can_manage: has(Permission::Manage),
        }
    }
}

/// What a key may do with a queue that it names.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueRights {
    /// Their names.
    permissions: Vec<&'static str>,
    #[serde(flatten)]
    rights: Rights,
}

/// A key.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    /// What it is for.
    description: String,
    /// The queues that it names; `*` stands for all.
    accessible_queues: BTreeSet<String>,
    /// What it may do with each.
    queue_permissions: BTreeMap<String, QueueRights>,
    /// How many there are.
    total_accessible_queues: usize,
}

/// See what the key may do
#[utoipa::path(get, path = "/auth/me", tag = "auth", responses((status = 200, body = Me), Errors))]
pub(super) async fn me(caller: Caller, State(app): State<App>) -> Result<Json<Me>, Error> {
    let queues = caller.named();
    let rights = queues.iter().map(|queue| {
        let permissions = caller.permissions(queue);
        let rights = QueueRights {
            rights: Rights::of(&permissions),
            permissions: permissions.into_iter().map(Permission::name).collect(),
        };
        (queue.clone(), rights)
    });
    Ok(Json(Me {
        description: caller.description(&app).await?,
        queue_permissions: rights.collect(),
        total_accessible_queues: queues.len(),
        accessible_queues: queues,
    }))
}

/// What a key may do with one queue.
#[derive(Serialize, ToSchema)]
pub(super) struct Access {
    /// The queue.
    #[schema(example = "orders")]
    queue_name: String,
    /// Whether it may do anything with it.
    has_access: bool,
    #[serde(flatten)]
    rights: Rights,
}

/// See what the key may do with a queue
#[utoipa::path(get, path = "/auth/permissions/{queue_name}", tag = "auth",
    params(("queue_name" = String, Path)), responses((status = 200, body = Access), Errors))]
pub(super) async fn permissions(caller: Caller, Queue(queue_name): Queue) -> Json<Access> {
    let permissions = caller.permissions(&queue_name);
    Json(Access {
        queue_name,
        has_access: !permissions.is_empty(),
        rights: Rights::of(&permissions),
    })
}
