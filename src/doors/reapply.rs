//! Settings of doors that hold for subscriptions which were made under other ones.

use serde_json::{Map, Value};

use crate::app::App;
use crate::db;
use crate::db::Page;
use crate::db::subscriptions::Subscription;
use crate::error::Error;

/// Subscriptions that are looked at in one call.
const PAGE: i32 = 1000;

/// Change the subscriptions whose ids begin with something, where there is anything to change.
///
/// # Errors
/// When the database fails.
pub async fn to_subscriptions(
    app: &App,
    prefix: &str,
    changes: impl Fn(&Subscription) -> Map<String, Value>,
) -> Result<(), Error> {
    let mut after = prefix.to_owned();
    loop {
        let page = Page {
            offset: 0,
            limit: PAGE,
            after: Some(after),
        };
        let all = db::subscriptions::list(&app.database, None, page, None, usize::MAX).await?;
        let ours = all
            .iter()
            .take_while(|subscription| subscription.id.starts_with(prefix));
        for subscription in ours {
            let changes = changes(subscription);
            if changes.is_empty() {
                continue;
            }
            let changes = Value::Object(changes).to_string();
            match app
                .engine
                .update_subscription(&subscription.id, &changes)
                .await
            {
                // deleted meanwhile
                Err(Error::Refused { status: 404, .. }) => {}
                updated => {
                    updated?;
                }
            }
        }
        match all.last() {
            Some(last) if last.id.starts_with(prefix) => after = last.id.clone(),
            _ => return Ok(()),
        }
    }
}
