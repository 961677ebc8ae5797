//! The Message Broker door: what programs written for it see, at the mount and at a listener of the door's own.

mod auth;
mod dead_letters;
mod publishing;
mod pulling;
mod push;
mod queues;
mod random;
mod rates;
mod service;
mod settings;
mod settling;
mod streams;
mod topics;
mod two_servers;

use serde_json::{Value, json};

use crate::support::{Answer, TestApp, answer_at};

/// May do everything.
const KEY: &str = "key-of-the-operator";

/// The door of a service.
struct Door {
    app: TestApp,
}

/// The door at one of its two places, with names that nobody else uses.
struct Place<'a> {
    door: &'a Door,
    url: String,
    /// Where its document is.
    mount: &'static str,
    /// A queue, and a topic.
    name: String,
}

async fn door() -> Door {
    door_with(&[]).await
}

async fn door_with(more: &[&str]) -> Door {
    door_showing(&["--broker-api-key", KEY], more).await
}

/// What callers have to show is told by the first flags.
async fn door_showing(auth: &[&str], more: &[&str]) -> Door {
    let mut flags = vec!["--broker-listen", "127.0.0.1:0"];
    flags.extend(auth);
    flags.extend(more);
    Door {
        app: TestApp::start_with(&flags).await,
    }
}

impl Door {
    /// At the mount, and alone.
    fn places(&self) -> [Place<'_>; 2] {
        let alone = self.app.alone.clone().unwrap();
        [
            (format!("{}/broker", self.app.url), "", "mounted"),
            (alone, "/broker", "alone"),
        ]
        .map(|(url, mount, name)| Place {
            door: self,
            url,
            mount,
            name: name.to_owned(),
        })
    }
}

impl Place<'_> {
    /// A request to a path behind the door's place, to be shaped.
    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        reqwest::Client::new().request(method, format!("{}{path}", self.url))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        answer_at(self.mount, request).await
    }

    /// A request to a path of the API, with a key or token.
    async fn send(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = self
            .request(method, &format!("/api/v1{path}"))
            .bearer_auth(key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.answer(request).await
    }

    fn queue(&self, rest: &str) -> String {
        format!("/queues/{}{rest}", self.name)
    }

    fn topic(&self, rest: &str) -> String {
        format!("/topics/{}{rest}", self.name)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(KEY, "GET", path, None).await
    }

    async fn put(&self, path: &str) -> Answer {
        self.send(KEY, "PUT", path, None).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(KEY, "DELETE", path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(KEY, "POST", path, Some(body)).await
    }

    /// Publish these to the queue.
    async fn publish(&self, messages: &[Value]) {
        for message in messages {
            let body = json!({ "message": message });
            self.post(&self.queue("/publish"), body).await.expect(201);
        }
    }

    /// What a pull of a queue, by a path, gives.
    async fn pull(&self, path: &str) -> Value {
        let pull = self.send(KEY, "POST", &format!("{path}/pull"), None).await;
        pull.expect(200).json()
    }

    /// All that pulls of a path give, each acked at once.
    async fn drain(&self, path: &str) -> Vec<Value> {
        let mut drained = Vec::new();
        loop {
            let pulled = self
                .post(&format!("{path}/pull"), json!({"auto_ack": true}))
                .await;
            let pulled = pulled.expect(200).json();
            if pulled["message_id"].is_null() {
                return drained;
            }
            drained.push(pulled);
        }
    }

    /// Settle a delivery of the queue; the status.
    async fn settle(&self, how: &str, pulled: &Value, more: Value) -> String {
        let mut body = json!({"delivery_tag": pulled["delivery_tag"]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let settled = self.post(&self.queue(how), body).await.expect(200).json();
        settled["status"].as_str().unwrap().to_owned()
    }

    /// Subscribe to the topic; the id.
    async fn subscribe(&self, pattern: &str) -> String {
        let body = json!({"mode": "pull", "routing_key": pattern});
        let made = self.post(&self.topic("/subscriptions"), body).await;
        assert!([200, 201].contains(&made.status), "{}", made.body);
        made.json()["subscription_id"].as_str().unwrap().to_owned()
    }

    /// Publish to the topic.
    async fn tell(&self, routing_key: &str, message: Value) {
        let body = json!({"routing_key": routing_key, "message": message});
        self.post(&self.topic("/publish"), body).await.expect(201);
    }
}

/// Nothing was there.
fn nothing() -> Value {
    json!({"delivery_tag": null, "message": null, "retry": 0})
}

fn messages(pulled: &[Value]) -> Vec<Value> {
    pulled
        .iter()
        .map(|pulled| pulled["message"].clone())
        .collect()
}

/// Where a refused request is wrong.
fn places_of(refused: &Value) -> Vec<Value> {
    let fields = refused["fields"].as_array().unwrap();
    fields.iter().map(|fault| fault["loc"].clone()).collect()
}
