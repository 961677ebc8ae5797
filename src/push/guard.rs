//! Where pushes may go. Whoever may make a subscription names the endpoint, and must not reach what only this
//! server reaches: an address is asked for here alone, checked, and connected to as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

use super::failure::Failure;
use super::names::{Names, Resolver};
use crate::config::push::Networks;

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(a: u16, b: u16, c: u16, length: u8) -> IpNet {
    let address = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(address, length))
}

/// Networks that are not of everybody (the registries of IANA for addresses of special purpose), and how
/// their addresses are called. The first that fits counts.
const SPECIAL: [(IpNet, &str); 27] = [
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "private (carrier-grade NAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "reserved"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    (v6(0, 0, 0, 128), "unspecified"),
    (LOOPBACK, "loopback"),
    (v6(0xfc00, 0, 0, 7), "private"),
    (v6(0xfe80, 0, 0, 10), "link-local"),
    (v6(0xff00, 0, 0, 8), "multicast"),
    (v6(0x2001, 0xdb8, 0, 32), "for documentation"),
    (v6(0x3fff, 0, 0, 20), "for documentation"),
    // Teredo, benchmarks, ORCHID: what is in there leads elsewhere
    (v6(0x2001, 0, 0, 23), "reserved"),
    // 6to4, in which any IPv4 address may be
    (v6(0x2002, 0, 0, 16), "reserved"),
    // of the rest of IPv6 only an eighth is in use
    (v6(0, 0, 0, 3), "reserved"),
    (v6(0x4000, 0, 0, 2), "reserved"),
    (v6(0x8000, 0, 0, 1), "reserved"),
];
const LOOPBACK: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));
/// In which networks without IPv4 put the addresses of IPv4 (RFC 6052).
const TRANSLATED: IpNet = v6(0x64, 0xff9b, 0, 96);

/// Says where pushes may go. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    allowed: Arc<Networks>,
    names: Names,
}

impl Guard {
    pub(super) fn new(allowed: Networks, resolver: Resolver) -> Self {
        Self {
            allowed: Arc::new(allowed),
            names: Names::new(resolver),
        }
    }

    /// The addresses of a host that may be connected to.
    pub(super) async fn addresses(
        &self,
        host: &Host<String>,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let found = match host {
            Host::Ipv4(address) => vec![SocketAddr::from((*address, port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, port))],
            Host::Domain(name) => {
                let addresses = self.names.look_up(name).await?;
                let with_port = |address: &IpAddr| SocketAddr::from((*address, port));
                addresses.iter().map(with_port).collect()
            }
        };
        let (permitted, others): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|address| self.permits(address.ip()));
        match others.first() {
            _ if !permitted.is_empty() => Ok(permitted),
            Some(refused) => Err(Failure::Refused(format!(
                "address {} is {}",
                refused.ip(),
                special(refused.ip()).unwrap_or("reserved")
            ))),
            None => Err(Failure::Unknown(host.to_string())),
        }
    }

    fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let inner = translated(address);
        special(address).is_none()
            || self.allowed.contain(address)
            || inner.is_some_and(|inner| self.allowed.contain(inner))
    }
}

/// What makes an address one that is not of everybody.
fn special(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    let address = translated(address).unwrap_or(address);
    let kinds = SPECIAL.iter();
    kinds
        .filter(|(network, _)| network.contains(&address))
        .map(|(_, kind)| *kind)
        .next()
}

/// The address of IPv4 that an address of IPv6 stands for where a network translates.
fn translated(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let [.., a, b, c, d] = v6.octets();
    TRANSLATED
        .contains(&address)
        .then(|| IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
}

/// An endpoint as it was given: its scheme, host and port as browsers read them, so that nothing is taken
/// for a name that is an address in another spelling.
pub(super) fn parse(endpoint: &str) -> Result<Url, Failure> {
    let refused = |text: &str| Failure::Refused(text.to_owned());
    let url = Url::parse(endpoint).map_err(|_| refused("the endpoint is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("the endpoint is not a URL of http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("the endpoint has a user name or a password"));
    }
    Ok(url)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
