//! Settings of push subscriptions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;
use ipnet::IpNet;

/// Loopback and the private networks of IPv4: where what one tries out runs.
const NEARBY: [IpNet; 5] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
];

/// Networks, such as `10.0.0.0/8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether one of them has an address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// What pushing is told.
#[derive(Clone, Debug, Args)]
pub struct PushSettings {
    /// Networks with private addresses that messages may be pushed to, such as 10.0.0.0/8, separated by
    /// commas; none by default, beside the private Postgres loopback and 10/8, 172.16/12, 192.168/16
    #[arg(
        id = "push_allowed_networks",
        long = "push-allowed-networks",
        global = true,
        env = "FASTPUBSUB_PUSH_ALLOWED_NETWORKS"
    )]
    #[arg(hide_env_values = true, value_name = "NETWORKS", value_parser = networks)]
    pub allowed_networks: Option<Networks>,
}

impl PushSettings {
    /// The networks beside the public ones that messages may be pushed to.
    #[must_use]
    pub fn networks(&self, is_embedded: bool) -> Networks {
        match &self.allowed_networks {
            Some(given) => given.clone(),
            None if is_embedded => Networks(NEARBY.to_vec()),
            None => Networks::default(),
        }
    }
}

pub(crate) fn networks(value: &str) -> Result<Networks, String> {
    let names = value.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            // an address alone is the network of itself
            let network = name
                .parse()
                .or_else(|_| name.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| {
                "must be networks such as 10.0.0.0/8 or fd00::/8, separated by commas".to_owned()
            })
        })
        .collect::<Result<_, _>>()
        .map(Networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        let read = networks("10.0.0.0/8, ::1 ,192.168.7.7").unwrap();

        for inside in ["10.255.0.1", "::1", "192.168.7.7"] {
            assert!(read.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "::2", "192.168.7.8"] {
            assert!(!read.contain(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(networks("").unwrap(), Networks::default());
        for bad in ["10.0.0.0/33", "localhost", "10/8", "10.0.0.0/8;::1"] {
            assert!(networks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_given_counts_also_beside_the_private_postgres() {
        let given = |value: &str| PushSettings {
            allowed_networks: Some(networks(value).unwrap()),
        };
        let none = PushSettings {
            allowed_networks: None,
        };
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);

        assert!(none.networks(true).contain(here));
        assert!(!none.networks(false).contain(here));
        assert!(!given("").networks(true).contain(here));
        assert!(given("127.0.0.1").networks(false).contain(here));
    }
}
