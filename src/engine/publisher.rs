//! Publishes, and rings for those who wait for messages.

use super::waiting::Waiting;
use crate::db::database::Database;
use crate::db::publish::{self, Answer, Once, Publication, Published, RequestKey};
use crate::error::Error;

#[derive(Clone)]
pub(super) struct Publisher {
    pub(super) database: Database,
    pub(super) waiting: Waiting,
}

impl Publisher {
    /// Publish all messages of all publications, or none.
    ///
    /// # Errors
    /// 404 for an unknown topic; 422 for what a message must not be.
    pub(super) async fn publish(
        &self,
        topic_id: &str,
        publications: &[Publication],
        once: Option<&Once>,
    ) -> Result<Answer, Error> {
        // to tell who got any costs a look, for which there is no need while nobody waits
        let asked = |publication: &Publication| publication.wants_subscriptions;
        let tells = self.waiting.has_places() || publications.iter().any(asked);
        let answer = publish::publish(&self.database, topic_id, publications, once, tells).await?;
        let messages = publications
            .iter()
            .map(|publication| publication.payloads.len())
            .sum();
        match &answer.subscription_ids {
            Some(subscription_ids) => {
                for subscription_id in subscription_ids {
                    self.waiting.announce(subscription_id, messages);
                }
            }
            // for whom came meanwhile
            None => self.waiting.announce_topic(topic_id, messages),
        }
        Ok(answer)
    }

    /// Publish what was not published before under its keys.
    pub(super) async fn publish_once(
        &self,
        topic_id: &str,
        publication: Publication,
        request: Option<RequestKey>,
        window_seconds: i32,
    ) -> Result<Published, Error> {
        let once = Once {
            request,
            window_seconds,
        };
        let answer = self.publish(topic_id, &[publication], Some(&once)).await?;
        Ok(Published {
            message_ids: answer.message_ids.unwrap_or_default(),
            duplicates: answer.duplicates.unwrap_or_default(),
            subscription_ids: answer.subscription_ids,
        })
    }
}
