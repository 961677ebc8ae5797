//! Connections to receivers: to an address that the guard has checked, and to no other. Those that are done
//! with a request wait for the next one, but not long.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::Host;

use super::failure::Failure;
use super::guard::Guard;

/// How long a connection waits for another request: less than receivers leave it open.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// How long one that has answered may take to be ready again.
const READY_WITHIN: Duration = Duration::from_millis(10);
/// Most bytes of the head of an answer.
const HEAD: usize = 16 * 1024;

/// Where an endpoint is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) host: Host<String>,
    pub(super) port: u16,
    /// Of its scheme.
    pub(super) is_default_port: bool,
    pub(super) is_encrypted: bool,
}

impl Place {
    /// As requests name it.
    pub(super) fn authority(&self) -> String {
        if self.is_default_port {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A connection, which is closed when this is dropped.
pub(super) struct Connection {
    pub(super) requests: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    async fn over<T>(stream: T) -> Result<Self, Failure>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(TokioIo::new(stream));
        let (requests, driver) = handshake.await.map_err(|error| broken(&error))?;
        let driver = tokio::spawn(async move {
            // who waits for an answer is told
            let _ended = driver.await;
        });
        Ok(Self {
            requests,
            _driver: AbortOnDropHandle::new(driver),
        })
    }
}

/// Makes connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dialer {
    guard: Guard,
    /// With the authorities that the system trusts, read when they are first needed.
    tls: Arc<OnceCell<TlsConnector>>,
}

impl Dialer {
    pub(super) fn new(guard: Guard) -> Self {
        Self {
            guard,
            tls: Arc::default(),
        }
    }

    /// Connect to a place, within some time.
    pub(super) async fn connect(
        &self,
        place: &Place,
        within: Duration,
    ) -> Result<Connection, Failure> {
        let addresses = self.guard.addresses(&place.host, place.port).await?;
        let each = u32::try_from(addresses.len()).map_or(within, |number| within / number.max(1));
        let mut failure = Failure::Late(within);
        for address in addresses {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // a push is small
                    let _gone = stream.set_nodelay(true);
                    return self.over(stream, place).await;
                }
                Ok(Err(error)) => failure = Failure::Unreachable(said(&error)),
                Err(_) => {}
            }
        }
        Err(failure)
    }

    async fn over(&self, stream: TcpStream, place: &Place) -> Result<Connection, Failure> {
        if !place.is_encrypted {
            return Connection::over(stream).await;
        }
        let name = match &place.host {
            Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()),
            Host::Ipv4(address) => Ok(ServerName::from(std::net::IpAddr::from(*address))),
            Host::Ipv6(address) => Ok(ServerName::from(std::net::IpAddr::from(*address))),
        };
        let name = name.map_err(|error| Failure::Tls(error.to_string()))?;
        let tls = self.tls.get_or_try_init(connector).await?;
        match tls.connect(name, stream).await {
            Ok(stream) => Connection::over(stream).await,
            Err(error) => Err(Failure::Tls(root(&error).to_string())),
        }
    }
}

async fn connector() -> Result<TlsConnector, Failure> {
    let read = tokio::task::spawn_blocking(|| {
        let mut roots = RootCertStore::empty();
        // some may be broken, or none there: then nobody is trusted
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        config.map(|mut config| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        })
    });
    match read.await {
        Ok(Ok(connector)) => Ok(connector),
        Ok(Err(error)) => Err(Failure::Tls(error.to_string())),
        Err(error) => Err(Failure::Tls(error.to_string())),
    }
}

/// Connections to one endpoint that wait for a request, the newest last. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    connections: Vec<(Connection, Instant)>,
    /// Somebody closes those that have waited for too long.
    is_swept: bool,
}

impl Waiting {
    fn sweep(&mut self) {
        self.connections.retain(|(connection, since)| {
            since.elapsed() < KEPT_FOR && connection.requests.is_ready()
        });
    }
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // nothing in here panics half way
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is still open.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        idle.sweep();
        idle.connections.pop().map(|(connection, _)| connection)
    }

    async fn sweep(self) {
        loop {
            sleep(KEPT_FOR).await;
            let mut idle = self.lock();
            idle.sweep();
            if idle.connections.is_empty() {
                idle.is_swept = false;
                return;
            }
        }
    }

    /// Keep one whose answer was read, if it stays open.
    pub(super) async fn keep(&self, mut connection: Connection) {
        if let Ok(Ok(())) = timeout(READY_WITHIN, connection.requests.ready()).await {
            let mut idle = self.lock();
            idle.connections.push((connection, Instant::now()));
            if !std::mem::replace(&mut idle.is_swept, true) {
                tokio::spawn(self.clone().sweep());
            }
        }
    }
}

/// What a failed exchange is called.
pub(super) fn broken(error: &hyper::Error) -> Failure {
    let text = if error.is_parse_too_large() {
        format!("its head has more than {HEAD} bytes")
    } else if error.is_parse() {
        "it is not HTTP".to_owned()
    } else if error.is_incomplete_message() {
        "the connection was closed".to_owned()
    } else {
        let root = root(error);
        root.downcast_ref::<io::Error>()
            .map_or_else(|| root.to_string(), said)
    };
    Failure::Broken(text)
}

/// Without the number of the system.
fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}

fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
