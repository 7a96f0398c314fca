//! Routes of one service, and requests that they serve.

use http::{HeaderName, HeaderValue, Request};
use shared::mesh::{
    HeaderMatch, HttpMatch, PathMatch, Reader, Route, Service, ValueMatch, Writer, sample, writer,
};

/// A mesh with one service of that many routes.
pub fn mesh(size: u32) -> (Writer, Reader) {
    let (mut writer, reader) = writer();
    writer.apply((0..size).map(|number| route(number).into()));
    writer.apply([service().into()]);
    (writer, reader)
}

/// The one that all routes are of.
pub fn service() -> Service {
    sample::service("web", "ns")
}

/// Routes by exact path, by prefix, and by a header on one path.
pub fn route(number: u32) -> Route {
    let service = service().key;
    let everything = HttpMatch::everything();
    let one = match number % 3 {
        0 => {
            let path = PathMatch::Exact(format!("/exact/{number}").into());
            HttpMatch { path, ..everything }
        }
        1 => {
            let path = PathMatch::Prefix(format!("/prefix/{number}").into());
            HttpMatch { path, ..everything }
        }
        _ => {
            let value = ValueMatch::Exact(format!("{number}").into());
            let header = HeaderMatch { name: HeaderName::from_static("x-user"), value };
            HttpMatch { headers: [header].into(), ..everything }
        }
    };
    let rule = sample::rule(vec![one], &service);
    sample::route(&format!("r{number}"), "ns", &service, vec![rule])
}

/// One that the route of that number serves.
pub fn request(number: u32) -> http::request::Parts {
    let path = match number % 3 {
        0 => format!("/exact/{number}"),
        1 => format!("/prefix/{number}/and/more"),
        _ => "/any".to_owned(),
    };
    let user = HeaderValue::from(number);
    let request = Request::get(path).header("x-user", user).body(());
    request.expect("a request").into_parts().0
}
