//! The engine's topic of the door.

use serde_json::json;

use super::names::TOPIC;
use crate::app::App;
use crate::db;
use crate::error::{Error, found};

/// Make it, if there is none.
pub(super) async fn create_topic(app: &App) -> Result<(), Error> {
    let retention = app.settings.pulsar.hot_tier_retention;
    // its topics are ordering keys, by which they are replayed
    match db::topics::create(&app.database, TOPIC, Some(retention), true).await {
        Ok(_) | Err(Error::Refused { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One that there is keeps messages for as long as the settings say now.
///
/// # Errors
/// When the database fails.
pub async fn apply_settings(app: &App) -> Result<(), Error> {
    let retention = Some(app.settings.pulsar.hot_tier_retention);
    let Some(topic) = found(db::topics::get(&app.database, TOPIC).await)? else {
        return Ok(());
    };
    if topic.message_retention_seconds != retention {
        let changes = json!({"message_retention_seconds": retention}).to_string();
        found(db::topics::update(&app.database, TOPIC, &changes).await)?;
    }
    Ok(())
}
