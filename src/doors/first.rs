//! Publishing to what comes with its first message.

use crate::app::App;
use crate::db::publish::{Publication, Published};
use crate::error::{Error, found};

/// How often something is made that is gone when the message comes: somebody may be deleting it.
const TRIES: usize = 5;

/// Publish; where there is no such topic, or nobody got what a subscription of its id was to get, `create`
/// makes it.
///
/// # Errors
/// What publishing and `create` say; 503 when it is deleted again and again.
pub async fn publish<F, T>(
    app: &App,
    id: &str,
    mut publication: Publication,
    create: impl Fn() -> F,
) -> Result<Published, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 0..TRIES {
        let publish = app.engine.publish(id.to_owned(), publication.clone(), None);
        if let Some(published) = found(publish.await)? {
            if !publication.wants_subscriptions || published.has_reached(id) {
                return Ok(published);
            }
            // its key is used, though nobody got it
            for extras in &mut publication.extras {
                extras.idempotency_key = None;
            }
        }
        create().await?;
    }
    Err(Error::refused(503, "it is being deleted"))
}
