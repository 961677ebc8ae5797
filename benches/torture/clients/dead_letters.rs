//! A worker that looks at dead letters and reprocesses some, each at most twice.

use std::collections::HashMap;
use std::sync::Arc;

use rand::seq::IndexedRandom;
use serde_json::Value;
use uuid::Uuid;

use super::super::history::{Event, Outcome, What};
use super::super::stage::Stage;
use super::super::world::SUBSCRIPTIONS;
use super::Session;

/// The most that a page holds.
const PAGE: usize = 100;

pub async fn reprocess(stage: Arc<Stage>) -> Vec<Event> {
    let mut session = Session::new(&stage, "reprocessor");
    let mut times: HashMap<(&str, Uuid), u32> = HashMap::new();
    while session.is_running() {
        session.pause(200..500).await;
        let subscription = SUBSCRIPTIONS.choose(&mut session.random).unwrap().id;
        let Some(mut ids) = page(&mut session, subscription, 0).await else {
            continue;
        };
        ids.retain(|id| session.one_in(2) && times.get(&(subscription, *id)) != Some(&2));
        if ids.is_empty() {
            continue;
        }
        for id in &ids {
            *times.entry((subscription, *id)).or_default() += 1;
        }
        let path = format!("/subscriptions/{subscription}/dlq/reprocess");
        let body = serde_json::to_string(&ids).unwrap();
        let what = |_: Option<&Value>| What::Reprocess { subscription, ids };
        session.call(("POST", &path, &body), what).await;
    }
    session.finish()
}

/// All dead letters of a subscription, as the API lists them.
pub async fn list(session: &mut Session, subscription: &str) -> Vec<Uuid> {
    let mut all = Vec::new();
    loop {
        let ids = page(session, subscription, all.len()).await.unwrap();
        let is_last = ids.len() < PAGE;
        all.extend(ids);
        if is_last {
            return all;
        }
    }
}

async fn page(session: &mut Session, subscription: &str, offset: usize) -> Option<Vec<Uuid>> {
    let path = format!("/subscriptions/{subscription}/dlq?offset={offset}&limit={PAGE}");
    let mut ids = Vec::new();
    let what = |body: Option<&Value>| {
        let letters = body.and_then(|body| body["data"].as_array());
        for letter in letters.into_iter().flatten() {
            ids.push(Uuid::parse_str(letter["id"].as_str().unwrap()).unwrap());
        }
        What::Read
    };
    let (outcome, _) = session.call(("GET", &path, ""), what).await;
    (outcome == Outcome::Done).then_some(ids)
}
