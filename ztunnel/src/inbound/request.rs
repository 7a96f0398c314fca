//! One CONNECT stream: from its request to its end.

use http::StatusCode;
use shared::hbone::{self, Incoming, Stream};
use shared::headers::refusal;
use tokio::net::TcpStream;

use crate::inbound::delivery::{self, Arrival, Delivered, deliver};
use crate::inbound::{Error, application};
use crate::metrics::ConnectionLog;
use crate::node::permits::Watch;
use crate::outcome::Outcome;

/// A tunnel to an application.
struct Connected {
    stream: Stream,
    application: TcpStream,
    watch: Watch,
    log: ConnectionLog,
}

/// Serves a stream until it ends.
pub(super) async fn serve(arrival: &Arrival, incoming: Incoming) {
    // Boxed: a connection lives long after it was made.
    if let Some(Connected { stream, application, watch, log }) =
        Box::pin(connect(arrival, incoming)).await
    {
        application::run(stream, application, watch, log).await;
    }
}

/// From the request to the 200; none when the stream was refused.
async fn connect(arrival: &Arrival, incoming: Incoming) -> Option<Connected> {
    match deliver(arrival, incoming.request(), incoming.cancelled()).await {
        Ok(Delivered { application, watch, log, workload }) => {
            let stream = incoming.accept(&delivery::response(arrival, &workload));
            Some(Connected { stream, application, watch, log })
        }
        Err(error) => {
            refuse(incoming, &error);
            None
        }
    }
}

/// Tells the peer why.
fn refuse(incoming: Incoming, error: &Error) {
    let outcome = Outcome::from(error);
    let status = match error {
        Error::Request(bad) => bad.status(),
        _ => outcome.status(),
    };
    debug_assert_ne!(status, StatusCode::OK);
    incoming.refuse(status, &refusal(outcome.code()));
}

/// Whether a tunnel connection ended by a fault of the peer that somebody should know of.
pub(super) fn is_protocol_error(error: &hbone::Error) -> bool {
    matches!(error, hbone::Error::Protocol(_))
}
