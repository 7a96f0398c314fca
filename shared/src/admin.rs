//! The small HTTP servers of a process: administration, statistics, readiness.
//!
//! Invariants: a TCP port never changes anything; whatever changes something, or shows memory, is
//! only on the unix socket of the owner; a slow or silent client costs one slot for seconds, not more.
//! Not here: what the answers say (closures given by the program).

mod guard;
pub mod listen;
pub mod pages;
mod serve;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

pub use self::guard::Exposure;
pub use self::listen::Listener;
pub use self::serve::serve;

/// A request, as a page sees it.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// What follows `?`, undecoded.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
}

/// The answer of a page.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Value of `content-type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

impl Reply {
    /// Plain text with this status.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// Pretty JSON.
    #[must_use]
    pub fn json(value: &serde_json::Value) -> Self {
        let body = serde_json::to_vec_pretty(value).unwrap_or_default();
        Self { status: StatusCode::OK, content_type: "application/json", body: body.into() }
    }
}

type Page = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// The pages of a server, by path and method. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pages {
    pages: Arc<BTreeMap<(&'static str, Method), Page>>,
}

impl Pages {
    /// Adds a page that answers at once.
    #[must_use]
    pub fn get(
        self,
        path: &'static str,
        page: impl Fn(Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.with(path, Method::GET, move |call| std::future::ready(page(call)))
    }

    /// Adds a page that changes something.
    #[must_use]
    pub fn post(
        self,
        path: &'static str,
        page: impl Fn(Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.with(path, Method::POST, move |call| std::future::ready(page(call)))
    }

    /// Adds a page that may wait.
    #[must_use]
    pub fn with<F, Fut>(self, path: &'static str, method: Method, page: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let mut pages = (*self.pages).clone();
        pages.insert((path, method), Arc::new(move |call| Box::pin(page(call))));
        Self { pages: Arc::new(pages) }
    }

    /// Paths with their methods, for an index.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &Method)> {
        self.pages.keys().map(|(path, method)| (*path, method))
    }

    fn find(&self, path: &str, method: &Method) -> Result<&Page, StatusCode> {
        // HEAD is GET without its body; hyper leaves the body out.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let mut known = false;
        for ((of, with), page) in self.pages.iter() {
            if *of == path {
                known = true;
                if with == method {
                    return Ok(page);
                }
            }
        }
        Err(if known { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND })
    }
}

#[cfg(test)]
mod tests;
