//! What the system looks after on the connection of a client.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long nothing is heard before it is asked whether the client is still there, and between such questions.
const ASKED_AFTER: Duration = Duration::from_secs(30);
const ASKED_AGAIN: Duration = Duration::from_secs(10);

/// Break off a connection whose client vanished, without a word: what it was sent, it does not confirm for so long.
///
/// # Errors
/// When it is gone by now.
pub fn mind(stream: &TcpStream, unconfirmed: Duration) -> io::Result<()> {
    // answers are small
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let asking = TcpKeepalive::new()
        .with_time(ASKED_AFTER)
        .with_interval(ASKED_AGAIN);
    socket.set_tcp_keepalive(&asking)?;
    // elsewhere the system has its own idea, of some minutes
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unconfirmed))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unconfirmed;
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_system_asks_after_a_client_and_gives_up_one_that_confirms_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();

        mind(&stream, Duration::from_secs(60)).unwrap();

        let socket = SockRef::from(&stream);
        let given_up_after = socket.tcp_user_timeout().unwrap();
        assert_eq!(given_up_after, Some(Duration::from_secs(60)));
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), ASKED_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), ASKED_AGAIN);
        assert!(stream.nodelay().unwrap());
    }
}
