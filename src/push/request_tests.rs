use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::guard::Guard;
use super::super::names::Resolver;
use super::*;
use crate::config::push::networks;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn dialer(allowed: &str, looks: &[&str]) -> Dialer {
    let look = |address: &&str| vec![address.parse::<IpAddr>().unwrap()];
    let looks = Arc::new(Mutex::new(looks.iter().map(look).collect()));
    Dialer::new(Guard::new(
        networks(allowed).unwrap(),
        Resolver::Script(looks),
    ))
}

fn target(endpoint: &str, limit: Duration) -> Target {
    let headers = BTreeMap::from([
        ("Authorization".to_owned(), "Bearer x".to_owned()),
        ("Host".to_owned(), "elsewhere".to_owned()),
        ("webhook-id".to_owned(), "mine".to_owned()),
    ]);
    Target::new(endpoint, &headers, &[SECRET.to_owned()], limit)
}

/// A receiver that does something with each connection.
struct Receiver {
    url: String,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start<F, A>(act: A) -> Self
    where
        A: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(act(stream));
            }
        });
        Self { url, connections }
    }

    /// One that reads each request and answers this.
    async fn that_answers(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                while !request(&mut stream).await?.is_empty() {
                    stream.write_all(&answer).await?;
                }
                Ok(())
            }
        })
        .await
    }

    async fn push(&self, limit: Duration) -> Sent {
        send(
            &dialer("127.0.0.1", &[]),
            &target(&self.url, limit),
            "id",
            "{}".into(),
        )
        .await
    }

    /// What a push that must not take long says.
    async fn answer(&self) -> Result<Answer, String> {
        let sent = self.push(Duration::from_secs(20)).await;
        sent.answer.map_err(|failure| failure.to_string())
    }
}

/// Read a request, whose body is `{}`.
async fn request(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n{}") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await? {
            0 => break,
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
    Ok(String::from_utf8(bytes).unwrap())
}

fn answered(status: u16) -> Result<Answer, String> {
    Ok(Answer {
        status,
        retry_after: None,
    })
}

#[tokio::test]
async fn a_push_is_a_signed_post_with_the_headers_of_its_endpoint() {
    let seen = Arc::new(Mutex::new(String::new()));
    let saw = Arc::clone(&seen);
    let receiver = Receiver::start(move |mut stream| {
        let saw = Arc::clone(&saw);
        async move {
            let request = request(&mut stream).await?;
            *saw.lock().unwrap() = request;
            stream.write_all(DONE.as_bytes()).await
        }
    })
    .await;

    let answer = receiver.answer().await;

    assert_eq!(answer, answered(204));
    let request = seen.lock().unwrap().clone();
    let header = |name: &str| {
        let lines = request.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {request}");
        value.map(str::to_owned)
    };
    assert!(
        request.starts_with("POST /hook?a=b HTTP/1.1\r\n"),
        "{request}"
    );
    let host = receiver.url.split('/').nth(2).unwrap().to_owned();
    assert_eq!(header("host"), Some(host));
    assert_eq!(header("content-type").unwrap(), "application/json");
    assert_eq!(header("authorization").unwrap(), "Bearer x");
    assert_eq!(header("webhook-id").unwrap(), "id");
    assert_eq!(header("content-length").unwrap(), "2");
    let timestamp = header("webhook-timestamp").unwrap().parse().unwrap();
    let signature = Keys::new(&[SECRET.to_owned()]).sign("id", timestamp, b"{}");
    assert_eq!(header("webhook-signature"), Some(signature));
}

#[tokio::test]
async fn a_connection_serves_one_push_after_the_other_and_one_that_was_closed_none() {
    let receiver = Receiver::that_answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let dialer = dialer("127.0.0.1", &[]);
    let target = target(&receiver.url, Duration::from_secs(20));
    for _ in 0..5 {
        let sent = send(&dialer, &target, "id", "{}".into()).await;
        assert!(sent.answer.unwrap().is_success());
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);

    // it does not stay for long
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(target.idle.take().is_none());

    // answers as if it stayed, and goes
    let receiver = Receiver::start(|mut stream| async move {
        request(&mut stream).await?;
        stream.write_all(DONE.as_bytes()).await
    })
    .await;
    let target = self::target(&receiver.url, Duration::from_secs(20));
    for _ in 0..20 {
        let sent = send(&dialer, &target, "id", "{}".into()).await;
        assert!(sent.answer.unwrap().is_success());
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again_where_its_answer_never_comes() {
    let receiver = Receiver::start(|mut stream| async move {
        request(&mut stream).await?;
        stream.write_all(DONE.as_bytes()).await?;
        request(&mut stream).await?;
        Ok(())
    })
    .await;
    let dialer = dialer("127.0.0.1", &[]);
    let target = target(&receiver.url, Duration::from_secs(20));

    let first = send(&dialer, &target, "id", "{}".into()).await;
    let second = send(&dialer, &target, "id", "{}".into()).await;

    assert!(first.answer.unwrap().is_success());
    let failure = second.answer.unwrap_err().to_string();
    assert_eq!(failure, "no answer: the connection was closed");
    assert!(second.is_reached);
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_receiver_that_hangs_is_left_in_time() {
    // at once, after the head, byte by byte, in the body, before the request is read
    let silent = Receiver::start(|mut stream| async move {
        request(&mut stream).await?;
        std::future::pending().await
    });
    let slow = |head: &'static str| {
        Receiver::start(move |mut stream| async move {
            request(&mut stream).await?;
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let receivers = [
        silent.await,
        slow("HTTP/1.1 200 O").await,
        slow("HTTP/1.1 200 OK\r\nx-long: ").await,
        slow("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await,
        slow("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nx: ").await,
    ];
    for (at, receiver) in receivers.iter().enumerate() {
        let limit = Duration::from_millis(200);
        let sent = receiver.push(limit).await;

        assert_eq!(sent.answer, Err(Failure::Late(limit)), "{at}");
        assert!(sent.is_reached, "{at}");
        assert!(sent.took < Duration::from_secs(5), "{at}");
    }
}

#[tokio::test]
async fn a_receiver_that_was_left_is_told_by_the_end_of_its_connection() {
    let (told, mut tells) = tokio::sync::mpsc::channel(1);
    let receiver = Receiver::start(move |mut stream| {
        let told = told.clone();
        async move {
            request(&mut stream).await?;
            let read = stream.read(&mut [0; 1]).await;
            told.send(matches!(read, Ok(0) | Err(_))).await.unwrap();
            Ok(())
        }
    })
    .await;

    receiver.push(Duration::from_millis(100)).await;

    assert_eq!(tells.recv().await, Some(true));
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let receiver = Receiver::start(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            request(&mut stream).await?;
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..100 {
                stream.write_all(&vec![b'x'; 1_000_000]).await?;
                count.fetch_add(1_000_000, Ordering::SeqCst);
            }
            Ok(())
        }
    })
    .await;

    assert_eq!(receiver.answer().await, answered(200));
    // what the system took into its buffers
    assert!(sent.load(Ordering::SeqCst) < 20_000_000);
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure_that_is_told() {
    let many = "x: y\r\n".repeat(20_000);
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1_000_000));
    for (answer, text) in [
        (String::new(), "no answer: the connection was closed"),
        (
            "HTTP/1.1 200 OK\r\ncontent-le".to_owned(),
            "no answer: the connection was closed",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned(),
            "no answer: ",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz".to_owned(),
            "no answer: ",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            "no answer: it is not HTTP",
        ),
        (
            "\u{15}\u{3}\u{1}\0\u{2}\u{2}\n".to_owned(),
            "no answer: it is not HTTP",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
            "no answer: its head has more than 16384 bytes",
        ),
        (long, "no answer: its head has more than 16384 bytes"),
    ] {
        let answer: Arc<str> = answer.into();
        let shown: String = answer.chars().take(40).collect();
        let receiver = Receiver::start(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                request(&mut stream).await?;
                stream.write_all(answer.as_bytes()).await
            }
        })
        .await;

        let failure = receiver.answer().await.unwrap_err();

        assert!(failure.starts_with(text), "{shown:?}: {failure}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_leads_nowhere() {
    let hidden = Receiver::that_answers(DONE).await;
    for status in [301, 302, 303, 307, 308] {
        let redirect = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
            hidden.url
        );
        let receiver = Receiver::that_answers(redirect).await;

        assert_eq!(receiver.answer().await, answered(status));
    }
    assert_eq!(hidden.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_resolves_differently_the_second_time_leads_where_it_was_checked() {
    let receiver = Receiver::that_answers(DONE).await;
    let port = receiver.url.split([':', '/']).nth(4).unwrap();
    let endpoint = format!("http://a.test:{port}/");
    let limit = Duration::from_secs(20);
    // one look a connection, whose address is the one that is checked
    let dialer = dialer("127.0.0.1", &["127.0.0.1", "127.0.0.2"]);

    let first = send(&dialer, &target(&endpoint, limit), "id", "{}".into()).await;
    let second = send(&dialer, &target(&endpoint, limit), "id", "{}".into()).await;

    assert!(first.answer.unwrap().is_success());
    assert_eq!(
        second.answer.unwrap_err().to_string(),
        "refused: address 127.0.0.2 is loopback"
    );
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_is_not_there_is_told_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    let limit = Duration::from_secs(20);
    let dialer = dialer("127.0.0.1", &[]);

    let sent = send(&dialer, &target(&endpoint, limit), "id", "{}".into()).await;

    assert!(!sent.is_reached);
    assert_eq!(sent.answer.unwrap_err().to_string(), "connection refused");
}

#[tokio::test]
async fn without_tls_at_the_other_end_there_is_no_push_over_https() {
    let receiver = Receiver::start(|mut stream| async move {
        let _beginning = stream.read(&mut [0; 1]).await?;
        stream.write_all(DONE.as_bytes()).await
    })
    .await;
    let endpoint = receiver.url.replace("http:", "https:");
    let limit = Duration::from_secs(20);
    let dialer = dialer("127.0.0.1", &[]);

    let sent = send(&dialer, &target(&endpoint, limit), "id", "{}".into()).await;

    let failure = sent.answer.unwrap_err().to_string();
    assert!(failure.starts_with("TLS: "), "{failure}");
}

#[tokio::test]
async fn an_overloaded_receiver_says_for_how_long() {
    let date = |seconds| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
    for (status, value, least, most) in [
        (429, "7".to_owned(), 7, 7),
        (503, "0".to_owned(), 0, 0),
        (503, " 120 ".to_owned(), 120, 120),
        (429, "99999".to_owned(), 3600, 3600),
        (429, "9".repeat(50), 3600, 3600),
        (503, date(100), 90, 100),
        (503, date(100_000), 3600, 3600),
        (503, "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 0, 0),
    ] {
        let head = format!("HTTP/1.1 {status} Busy\r\nretry-after: {value}\r\n");
        let receiver = Receiver::that_answers(head + "content-length: 0\r\n\r\n").await;

        let answer = receiver.answer().await.unwrap();

        let wait = answer.retry_after.unwrap().as_secs();
        assert!((least..=most).contains(&wait), "{value}: {wait}");
    }
    for (status, value) in [
        (429, "soon"),
        (429, "-1"),
        (429, "1.5"),
        (500, "7"),
        (200, "7"),
    ] {
        let head = format!("HTTP/1.1 {status} Busy\r\nretry-after: {value}\r\n");
        let receiver = Receiver::that_answers(head + "content-length: 0\r\n\r\n").await;

        assert_eq!(receiver.answer().await, answered(status), "{value}");
    }
}
