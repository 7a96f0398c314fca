//! The labels of a connection, from what the mesh and the peer say about its ends.

use shared::headers::Baggage;
use shared::identity::SpiffeId;
use shared::mesh::Workload;
use shared::telemetry::access::Direction;
use shared::telemetry::traffic::{Labels, Party, Reporter, Security, Service};

use crate::metrics::Story;

/// Builds the labels and lends them.
pub(super) fn with<T>(story: &Story, use_them: impl FnOnce(&Labels<'_>) -> T) -> T {
    let text = |id: Option<&SpiffeId>| id.map(ToString::to_string).unwrap_or_default();
    // The source's principal is a proof, the destination's is what the mesh says.
    let source_principal = match story.security {
        Security::MutualTls => text(story.source_identity.as_ref()),
        Security::Unknown => String::new(),
    };
    let destination_principal = text(story.destination.as_deref().map(|one| &one.identity));
    let source = match (&story.source, &story.source_baggage) {
        (Some(workload), _) => of_workload(workload),
        (None, Some(baggage)) => of_baggage(baggage),
        (None, None) => Party::default(),
    };
    let destination = story.destination.as_deref().map(of_workload).unwrap_or_default();
    use_them(&Labels {
        reporter: match story.direction {
            Direction::Outbound => Reporter::Source,
            Direction::Inbound => Reporter::Destination,
        },
        source: Party { principal: &source_principal, ..source },
        destination: Party { principal: &destination_principal, ..destination },
        service: story.service.as_deref().map_or_else(Service::default, |service| Service {
            host: &service.key.hostname,
            namespace: &service.key.namespace,
            name: &service.name,
        }),
        security: story.security,
    })
}

fn of_workload(workload: &Workload) -> Party<'_> {
    Party {
        workload: &workload.workload_name,
        namespace: workload.namespace(),
        canonical_service: &workload.canonical_name,
        canonical_revision: &workload.canonical_revision,
        principal: "",
        cluster: &workload.cluster_id,
        region: &workload.locality.region,
        zone: &workload.locality.zone,
    }
}

fn of_baggage(baggage: &Baggage) -> Party<'_> {
    fn text(value: &Option<Box<str>>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    Party {
        workload: text(&baggage.workload),
        namespace: text(&baggage.namespace),
        canonical_service: text(&baggage.service),
        canonical_revision: text(&baggage.version),
        principal: "",
        cluster: text(&baggage.cluster),
        region: text(&baggage.region),
        zone: text(&baggage.zone),
    }
}
