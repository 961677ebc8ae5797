//! The PyQueue door: what programs written for PyQueue Server see, at the mount and at a listener of the
//! door's own.

mod adding;
mod deleting;
mod keys;
mod looking;
mod random;
mod receiving;
mod service;
mod settings;

use serde_json::{Value, json};

use crate::support::{Answer, TestApp, answer_of, documented};

/// May do everything with every queue.
const KEY: &str = "key-of-the-operator";
/// Keys with less, beside it.
const KEYS: &str = r#"{
    "key-of-the-operator": {"description": "operator", "queues": {"*": ["READ", "write", "Delete", "manage"]}},
    "key-of-a-reader": {"description": "reader", "queues": {"orders": ["read"], "mails": []}},
    "key-of-a-writer": {"queues": {"orders": ["WRITE"]}},
    "key-of-two-minds": {"description": "star", "queues": {"*": ["read"], "orders": ["write"]}}
}"#;

/// The door of a service.
struct Door {
    app: TestApp,
}

/// The door at one of its two places, with a queue that nobody else uses.
struct Place<'a> {
    door: &'a Door,
    url: String,
    queue: String,
}

async fn door() -> Door {
    door_with(&[]).await
}

async fn door_with(more: &[&str]) -> Door {
    let mut flags = vec![
        "--pyqueue-api-keys-json",
        KEYS,
        "--pyqueue-listen",
        "127.0.0.1:0",
    ];
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
            (format!("{}/pyqueue", self.app.url), "mounted"),
            (alone, "alone"),
        ]
        .map(|(url, queue)| Place {
            door: self,
            url,
            queue: queue.to_owned(),
        })
    }
}

impl Place<'_> {
    /// A request to a path behind the door's place, with a key. The answer must be a documented one.
    async fn send(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method, path).header("X-API-Key", key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.tell(request).await
    }

    /// A request to shape by hand.
    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        reqwest::Client::new().request(method, format!("{}{path}", self.url))
    }

    /// Its answer, which must be a documented one.
    async fn tell(&self, request: reqwest::RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, url) = (request.method().clone(), request.url().clone());
        let answer = answer_of(client, request).await;
        let path = url.path().trim_start_matches("/pyqueue");
        let path = format!("/pyqueue{path}");
        documented::check(method.as_str(), &path, answer.status, &answer.body);
        answer
    }

    /// A path of the queue.
    fn path(&self, rest: &str) -> String {
        format!("/api/v1/queues/{}/{rest}", self.queue)
    }

    async fn get(&self, rest: &str) -> Answer {
        self.send(KEY, "GET", &self.path(rest), None).await
    }

    async fn delete(&self, rest: &str) -> Answer {
        self.send(KEY, "DELETE", &self.path(rest), None).await
    }

    async fn post(&self, rest: &str, body: Value) -> Answer {
        self.send(KEY, "POST", &self.path(rest), Some(body)).await
    }

    async fn put(&self, rest: &str, body: Value) -> Answer {
        self.send(KEY, "PUT", &self.path(rest), Some(body)).await
    }

    /// Add messages `{"n": ID}` with these ids.
    async fn add(&self, ids: &[&str]) {
        for id in ids {
            let body = json!({"id": id, "message_body": {"n": id}});
            self.post("messages", body).await.expect(200);
        }
    }

    /// What a receive with a query gives.
    async fn receive(&self, query: &str) -> Vec<Value> {
        let path = self.path(&format!("messages/receive{query}"));
        let answer = self.send(KEY, "POST", &path, None).await.expect(200);
        list(&answer.json())
    }

    /// The ids of the available messages, and how many are in flight.
    async fn state(&self) -> (Vec<String>, i64) {
        let page = self.get("messages?limit=100").await.expect(200).json();
        let info = self.get("info").await.expect(200).json();
        let available = ids(&list(&page));
        assert_eq!(info["available_messages"], available.len());
        assert_eq!(page["total"], available.len());
        (available, info["in_flight_messages"].as_i64().unwrap())
    }
}

fn list(page: &Value) -> Vec<Value> {
    page["messages"].as_array().unwrap().clone()
}

fn ids(messages: &[Value]) -> Vec<String> {
    messages.iter().map(id).collect()
}

fn id(message: &Value) -> String {
    message["id"].as_str().unwrap().to_owned()
}

fn handle(message: &Value) -> String {
    message["receipt_handle"].as_str().unwrap().to_owned()
}
