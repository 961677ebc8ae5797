//! Operators pause the subscription: nobody gets anything meanwhile, and everything else goes on.

use rand::RngExt;

use super::calls::claim;
use super::rules::Terms;
use super::{CONSUMERS, World};
use crate::engine::execute;

const PAUSE: &str = "select pubsub.update_subscription('s', '{\"paused\": true}')";
const GO_ON: &str = "select pubsub.update_subscription('s', '{\"paused\": false}')";

impl World {
    pub(super) async fn pause(&mut self) {
        execute(&mut self.admin, PAUSE).await;
        for _ in 0..self.random.random_range(1..5) {
            match self.random.random_range(0..4) {
                0 => self.publish().await,
                1 => self.settle().await,
                2 => {
                    let seconds = f64::from(self.random.random_range(1..30));
                    self.advance(seconds).await;
                }
                _ => {}
            }
            let consumer = self.random.random_range(0..CONSUMERS);
            let terms = Terms {
                takes: self.random.random_bool(0.3),
                ..Terms::default()
            };
            let connection = &mut self.consumers[consumer];
            let claimed = claim(connection, &[consumer], &[10], terms, None).await;
            assert_eq!(claimed.unwrap().len(), 0, "handed out during a pause");
        }
        execute(&mut self.admin, GO_ON).await;
        self.operations += 1;
    }
}
