//! The pages that both proxies have.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{Call, Pages, Reply};
use crate::ready::Ready;
use crate::telemetry::logging::{Change, Handle};
use crate::telemetry::metrics::{Exposition, Registry};

type Section = Arc<dyn Fn() -> BoxFuture<'static, Value> + Send + Sync>;

/// Sections of `/config_dump`, in order: a key, and what says its value at this moment.
#[derive(Clone, Default)]
pub struct Dump {
    sections: Vec<(&'static str, Section)>,
}

impl Dump {
    /// Adds a section. It must not show secrets, nor block.
    #[must_use]
    pub fn section(
        self,
        key: &'static str,
        value: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Self {
        self.asked(key, move || std::future::ready(value()))
    }

    /// Adds a section whose value must be asked for.
    #[must_use]
    pub fn asked<F, Fut>(mut self, key: &'static str, value: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Value> + Send + 'static,
    {
        self.sections.push((key, Arc::new(move || Box::pin(value()))));
        self
    }

    /// All sections as one object.
    pub async fn json(&self) -> Value {
        let mut all = Map::new();
        for (key, value) in &self.sections {
            all.insert((*key).to_owned(), value().await);
        }
        all.into()
    }
}

/// Pages of the administrative servers. `quit` begins the shutdown of the process.
#[must_use]
pub fn admin(dump: Dump, log: Option<Handle>, quit: mpsc::UnboundedSender<()>) -> Pages {
    let pages = Pages::default()
        .with("/config_dump", Method::GET, move |_| {
            let dump = dump.clone();
            async move { Reply::json(&dump.json().await) }
        })
        .post("/logging", move |call| logging(log.as_ref(), &call))
        .post("/quitquitquit", move |_| {
            // Nobody listens any more: the process is going already.
            quit.send(()).ok();
            Reply::text(StatusCode::OK, "shutdown now\n")
        });
    let index = index(&pages);
    pages.get("/", move |_| Reply {
        content_type: "text/html; charset=utf-8",
        ..Reply::text(StatusCode::OK, index.clone())
    })
}

/// Pages of the statistics server.
#[must_use]
pub fn statistics(registry: Registry) -> Pages {
    let again = registry.clone();
    Pages::default()
        .get("/metrics", move |call| metrics(&registry, &call))
        .get("/stats/prometheus", move |call| metrics(&again, &call))
}

/// Pages of the readiness server.
#[must_use]
pub fn readiness(ready: Ready) -> Pages {
    Pages::default().get("/healthz/ready", move |_| {
        let pending = ready.pending();
        if pending.is_empty() {
            Reply::text(StatusCode::OK, "ready\n")
        } else {
            let text = format!("not ready, pending: {}\n", pending.join(", "));
            Reply::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    })
}

fn metrics(registry: &Registry, call: &Call) -> Reply {
    let accept = call.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let exposition = Exposition::accepted_by(accept);
    match registry.expose(exposition) {
        Ok(text) => {
            Reply { content_type: exposition.content_type(), ..Reply::text(StatusCode::OK, text) }
        }
        Err(error) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn logging(log: Option<&Handle>, call: &Call) -> Reply {
    let Some(log) = log else {
        return Reply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the log of this process is not ours\n",
        );
    };
    match Change::parse(&call.query) {
        Err(error) => Reply::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        Ok(change) if change == Change::default() => current(log),
        Ok(change) => match log.change(&change) {
            Ok(()) => current(log),
            Err(error) => Reply::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
    }
}

fn current(log: &Handle) -> Reply {
    Reply::text(StatusCode::OK, format!("current log level is {}\n", log.current()))
}

fn index(pages: &Pages) -> String {
    let item = |(path, method): (&str, &Method)| match *method {
        Method::GET => format!("<li><a href=\"{path}\">{path}</a></li>\n"),
        _ => format!("<li>{method} {path} (unix socket only)</li>\n"),
    };
    let items: String = pages.paths().map(item).collect();
    format!("<!doctype html>\n<title>Culvert</title>\n<h1>Culvert</h1>\n<ul>\n{items}</ul>\n")
}
