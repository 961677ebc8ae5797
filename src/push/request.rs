//! One push: a POST whose answer says whether the receiver has the message. Whatever the receiver does, it
//! ends in time and takes little memory.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use tokio::time::{Instant, timeout};

use super::connection::{Connection, Dialer, Idle, Place, broken};
use super::failure::Failure;
use super::guard;
use super::signature::Keys;

/// Most bytes of an answer that are read; what follows is of no interest, nor is the connection then.
const ANSWER: usize = 4096;
/// The longest wait that a receiver can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// What says how the request is framed, or is said by us.
const OURS: [HeaderName; 10] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
];
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const USER_AGENT: &str = concat!("fastpubsub/", env!("CARGO_PKG_VERSION"));

/// An endpoint as it is pushed to.
pub(super) struct Target {
    place: Result<(Place, Uri), Failure>,
    headers: HeaderMap,
    keys: Keys,
    /// For all of a push.
    pub(super) limit: Duration,
    idle: Idle,
}

/// How a push went.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) answer: Result<Answer, Failure>,
    pub(super) took: Duration,
    /// There was a receiver to ask, who may have the message whatever the answer.
    pub(super) is_reached: bool,
}

/// What a receiver said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Of one that is overloaded: how long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Answer {
    /// Whether the receiver has the message.
    pub(super) fn is_success(self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Target {
    /// Of an endpoint with headers of its own, and what signs its messages.
    pub(super) fn new(
        endpoint: &str,
        own_headers: &BTreeMap<String, String>,
        secrets: &[String],
        limit: Duration,
    ) -> Self {
        let place = place(endpoint);
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        for (name, value) in own_headers {
            let name = HeaderName::try_from(name.as_str());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.as_str()))
                && !OURS.contains(&name)
            {
                headers.insert(name, value);
            }
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Ok((place, _)) = &place
            && let Ok(host) = HeaderValue::try_from(place.authority())
        {
            headers.insert(header::HOST, host);
        }
        Self {
            place,
            headers,
            keys: Keys::new(secrets),
            limit,
            idle: Idle::default(),
        }
    }

    fn request(&self, uri: &Uri, message_id: &str, body: Bytes) -> Option<Request<Full<Bytes>>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let timestamp = i64::try_from(now.as_secs()).ok()?;
        let signature = self.keys.sign(message_id, timestamp, &body);
        let mut request = Request::post(uri).body(Full::new(body)).ok()?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(WEBHOOK_ID, HeaderValue::try_from(message_id).ok()?);
        headers.insert(WEBHOOK_TIMESTAMP, timestamp.into());
        headers.insert(WEBHOOK_SIGNATURE, HeaderValue::try_from(signature).ok()?);
        Some(request)
    }
}

fn place(endpoint: &str) -> Result<(Place, Uri), Failure> {
    let url = guard::parse(endpoint)?;
    let refused = || Failure::Refused("the endpoint is not a URL of http".to_owned());
    let host = url.host().ok_or_else(refused)?.to_owned();
    let port = url.port_or_known_default().ok_or_else(refused)?;
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let place = Place {
        host,
        port,
        is_default_port: url.port().is_none(),
        is_encrypted: url.scheme() == "https",
    };
    Ok((place, Uri::try_from(path).map_err(|_| refused())?))
}

/// Push a body under the id of its message.
pub(super) async fn send(dialer: &Dialer, target: &Target, message_id: &str, body: Bytes) -> Sent {
    let started = Instant::now();
    let mut is_reached = false;
    let exchange = exchange(dialer, target, message_id, body, &mut is_reached);
    let answer = match timeout(target.limit, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::Late(target.limit)),
    };
    Sent {
        answer,
        took: started.elapsed(),
        is_reached,
    }
}

async fn exchange(
    dialer: &Dialer,
    target: &Target,
    message_id: &str,
    body: Bytes,
    is_reached: &mut bool,
) -> Result<Answer, Failure> {
    let (place, uri) = target.place.as_ref().map_err(Clone::clone)?;
    let refused = || Failure::Refused("the request cannot be made".to_owned());
    let mut request = target.request(uri, message_id, body).ok_or_else(refused)?;
    if let Some(mut idle) = target.idle.take() {
        *is_reached = true;
        match idle.requests.try_send_request(request).await {
            Ok(response) => return read(target, idle, response).await,
            // one that comes back was not begun to be written, and cannot come twice
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(broken(&error.into_error())),
            },
        }
        *is_reached = false;
    }
    let mut connection = dialer.connect(place, target.limit).await?;
    *is_reached = true;
    let response = connection.requests.send_request(request).await;
    read(
        target,
        connection,
        response.map_err(|error| broken(&error))?,
    )
    .await
}

/// Read an answer, as far as it is of interest.
async fn read(
    target: &Target,
    connection: Connection,
    response: Response<Incoming>,
) -> Result<Answer, Failure> {
    let answer = Answer {
        status: response.status().as_u16(),
        retry_after: retry_after(response.status(), response.headers()),
    };
    let mut body = response.into_body();
    let mut left = ANSWER;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return Ok(answer),
        }
    }
    target.idle.keep(connection).await;
    Ok(answer)
}

fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let is_asked = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let value = headers.get(header::RETRY_AFTER).filter(|_| is_asked)?;
    let value = value.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit()) {
        // more digits than a number has are long, too
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let until = httpdate::parse_http_date(value).ok()?;
        until.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
