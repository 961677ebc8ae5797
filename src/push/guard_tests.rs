use super::*;

fn guard(allowed: &str, looks: &[&[&str]]) -> Guard {
    let looks = looks
        .iter()
        .map(|look| {
            look.iter()
                .map(|address| address.parse().unwrap())
                .collect()
        })
        .collect();
    let resolver = Resolver::Script(Arc::new(std::sync::Mutex::new(looks)));
    Guard::new(crate::config::push::networks(allowed).unwrap(), resolver)
}

/// Where a URL leads.
async fn leads(guard: &Guard, endpoint: &str) -> Result<Vec<SocketAddr>, Failure> {
    let url = parse(endpoint)?;
    let host = url.host().unwrap().to_owned();
    let port = url.port_or_known_default().unwrap();
    guard.addresses(&host, port).await
}

async fn refusal(guard: &Guard, endpoint: &str) -> String {
    match leads(guard, endpoint).await {
        Err(failure @ Failure::Refused(_)) => failure.to_string(),
        other => panic!("{endpoint} leads to {other:?}"),
    }
}

#[tokio::test]
async fn addresses_that_are_not_of_everybody_are_refused_in_every_spelling() {
    let guard = guard("", &[]);

    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "0",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::10.0.0.1]",
        "[2002:7f00:1::]",
        "[2002:808:808::]",
        "[2001:0:a00:1::]",
        "[2001:2::1]",
        "[2001:10::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[5f00::1]",
        "[100::1]",
        "[4000::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
    ] {
        let endpoint = format!("http://{host}/hook");
        let text = refusal(&guard, &endpoint).await;
        assert!(text.starts_with("refused: address "), "{host}: {text}");
    }
}

#[tokio::test]
async fn addresses_of_everybody_are_permitted() {
    let guard = guard("", &[]);

    for host in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "[2606:4700:4700::1111]",
        "[2001:4860:4860::8888]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::8.8.8.8]",
    ] {
        let led = leads(&guard, &format!("https://{host}/")).await.unwrap();
        assert_eq!(led.len(), 1, "{host}");
        assert_eq!(led[0].port(), 443);
    }
}

#[tokio::test]
async fn a_name_leads_only_where_its_addresses_may() {
    let looks: &[&[&str]] = &[&["10.0.0.1", "8.8.8.8", "::1"], &["10.0.0.1", "::1"], &[]];
    let guard = guard("", looks);

    let mixed = leads(&guard, "http://a.test:81/").await.unwrap();
    let private = refusal(&guard, "http://a.test/").await;
    let none = leads(&guard, "http://a.test/").await.unwrap_err();

    assert_eq!(mixed, ["8.8.8.8:81".parse().unwrap()]);
    assert_eq!(private, "refused: address 10.0.0.1 is private");
    assert_eq!(none.to_string(), "the name a.test is not known");
}

#[tokio::test]
async fn allowed_networks_are_permitted_and_nothing_beside_them() {
    let guard = guard("10.0.0.0/8,::1", &[]);

    for host in [
        "10.1.2.3",
        "[::1]",
        "[::ffff:10.1.2.3]",
        "[64:ff9b::10.1.2.3]",
    ] {
        leads(&guard, &format!("http://{host}/")).await.unwrap();
    }
    for (host, kind) in [
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("192.168.0.1", "private"),
        ("[::ffff:127.0.0.1]", "loopback"),
    ] {
        let text = refusal(&guard, &format!("http://{host}/")).await;
        assert!(text.ends_with(kind), "{text}");
    }
}

#[test]
fn only_plain_urls_of_http_are_endpoints() {
    for good in [
        "http://a.test",
        "HTTPS://A.test:8443/x?y=z",
        "http://a.test/#part",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for bad in [
        "ftp://a.test/",
        "file:///etc/passwd",
        "gopher://a.test/",
        "unix:/run/x",
        "data:text/plain,x",
        "a.test/hook",
        "http://",
        "http://user@a.test/",
        "http://user:secret@a.test/",
        "http://:secret@a.test/",
        "http://256.256.256.256/",
        "http://[::1",
        "http://a.test:99999/",
        "",
    ] {
        let failure = parse(bad).unwrap_err().to_string();
        assert!(failure.starts_with("refused: "), "{bad}: {failure}");
        assert!(!failure.contains("secret"), "{failure}");
    }
}
