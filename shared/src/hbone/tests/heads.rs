//! Heads as the `h2` crate writes and reads them: Huffman strings, a dynamic table that changes with
//! every head and lets go of old entries, CONTINUATION.

use http::{HeaderName, HeaderValue};

use super::peers::*;
use super::*;

/// Heads in one connection: enough for the table of 4 KiB to be used up many times.
const HEADS: usize = 200;

/// Fields that differ from head to head, that come back, and that do not fit into any table.
fn fields(number: usize) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let mut add = |name: &str, value: String| {
        let name: HeaderName = name.parse().unwrap();
        fields.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    };
    add("baggage", "k8s.namespace.name=team,k8s.deployment.name=web".to_owned());
    add("traceparent", format!("00-{number:032x}-{number:016x}-00"));
    add("forwarded", format!("for=\"10.0.0.{}:{}\"", number % 250, 1000 + number));
    add("x-comes-back", format!("{}~^|{}", number % 7, "\u{e9}<>".repeat(number % 5)));
    add(&format!("x-own-{number}"), "once".repeat(number % 30));
    add("set-cookie", format!("a={number}"));
    add("set-cookie", "b=2".to_owned());
    if number.is_multiple_of(50) {
        add("x-beyond-the-table", "z".repeat(5_000));
    }
    fields
}

#[tokio::test]
async fn heads_of_an_h2_client_stay_in_step_with_its_table() {
    local(async {
        let (mut sender, mut server) = h2_to_us(65_535, Config::server()).await;
        let served = spawn_local(async move {
            for number in 0..HEADS {
                let incoming = server.accept().await.unwrap().unwrap();
                assert_eq!(*incoming.request().unwrap().authority, *format!("host-{number}:80"));
                assert_eq!(incoming.request().unwrap().headers, fields(number), "{number}");
                incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, &fields(number));
            }
            while server.accept().await.is_some() {}
        });
        for number in 0..HEADS {
            let mut request = connect(&format!("host-{number}:80"));
            *request.headers_mut() = fields(number);
            let response = sender.send_request(request, true).unwrap().0.await.unwrap();
            assert_eq!(*response.headers(), fields(number), "{number}");
            sender = sender.ready().await.unwrap();
        }
        drop(sender);
        served.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn heads_of_an_h2_server_stay_in_step_with_its_table() {
    local(async {
        let client = us_to_h2(65_535, Config::client(), |request, mut respond| async move {
            let mut response = http::Response::new(());
            *response.headers_mut() = request.headers().clone();
            respond.send_response(response, true).unwrap();
        });
        for number in 0..HEADS {
            let request = Request { authority: "a:1".into(), headers: fields(number) };
            let (response, _stream) = client.open(&request).await.unwrap();
            assert_eq!(response.headers, fields(number), "{number}");
        }
    })
    .await;
}

#[tokio::test]
async fn heads_that_need_continuation_pass_from_an_h2_client_and_back() {
    local(async {
        let (mut sender, mut server) = h2_to_us(65_535, Config::server()).await;
        let large: HeaderValue = "y".repeat(20_000).parse().unwrap();
        let ours = large.clone();
        spawn_local(async move {
            let incoming = server.accept().await.unwrap().unwrap();
            assert_eq!(incoming.request().unwrap().headers["x-large"], ours);
            let mut headers = HeaderMap::new();
            headers.insert("x-large", ours.clone());
            incoming.accept(&headers).send_end();
            while server.accept().await.is_some() {}
        });
        let mut request = connect("a:1");
        request.headers_mut().insert("x-large", large.clone());
        let (response, _send) = sender.send_request(request, false).unwrap();
        assert_eq!(response.await.unwrap().headers()["x-large"], large);
    })
    .await;
}

#[tokio::test]
async fn heads_that_need_continuation_pass_to_an_h2_server_and_back() {
    local(async {
        let config = Config { max_header_list_bytes: 64 << 10, ..Config::client() };
        let client = us_to_h2(65_535, config, |request, mut respond| async move {
            let mut response = http::Response::new(());
            *response.headers_mut() = request.headers().clone();
            respond.send_response(response, true).unwrap();
        });
        let mut headers = HeaderMap::new();
        headers.insert("x-large", "y".repeat(40_000).parse().unwrap());
        let request = Request { authority: "a:1".into(), headers };
        let (response, _stream) = client.open(&request).await.unwrap();
        assert_eq!(response.headers, request.headers);
        // Beyond what we ask for, the stream ends and the connection lives.
        let mut headers = HeaderMap::new();
        headers.insert("x-large", "y".repeat(70_000).parse().unwrap());
        let too_large = Request { authority: "a:1".into(), headers };
        let broken = client.open(&too_large).await.map(|_| ());
        assert!(matches!(broken, Err(Error::Reset(_))), "{broken:?}");
        assert!(client.open(&request).await.is_ok());
    })
    .await;
}
