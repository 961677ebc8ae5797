//! Queues and their settings.

use serde_json::json;

use super::PREFIX;
use super::caller::Queue;
use crate::app::App;
use crate::db;
use crate::db::subscriptions::Subscription;
use crate::doors::reapply;
use crate::error::Error;

/// How often a message is delivered before it is a dead letter: for ever, unless the settings say.
fn max_delivery_attempts(app: &App) -> i32 {
    match app.settings.pyqueue.max_receive_count {
        0 => i32::MAX,
        count => count,
    }
}

/// Make a queue, if there is none.
pub(super) async fn create_queue(app: &App, queue: &Queue) -> Result<(), Error> {
    let settings = json!({ "max_delivery_attempts": max_delivery_attempts(app) });
    db::queues::create(&app.database, &queue.id(), &settings, None).await?;
    Ok(())
}

/// Queues that were made under other settings get those of now.
///
/// # Errors
/// When the database fails.
pub async fn apply_settings(app: &App) -> Result<(), Error> {
    let settings = &app.settings.pyqueue;
    if settings.listen.is_some() && settings.keys.is_empty() {
        tracing::warn!(
            "PyQueue clients have no keys but those of create_client: \
             FASTPUBSUB_PYQUEUE_API_KEYS_JSON, FASTPUBSUB_PYQUEUE_API_KEYS_FILE"
        );
    }
    if settings.max_receive_count > 0 {
        tracing::info!(
            max_receive_count = settings.max_receive_count,
            "PyQueue messages that are received so often and not deleted become dead letters"
        );
    }
    let wanted = max_delivery_attempts(app);
    let changes = |queue: &Subscription| {
        let name = "max_delivery_attempts";
        let differs = queue.max_delivery_attempts != wanted;
        differs
            .then(|| (name.to_owned(), json!(wanted)))
            .into_iter()
            .collect()
    };
    reapply::to_subscriptions(app, PREFIX, changes).await
}
