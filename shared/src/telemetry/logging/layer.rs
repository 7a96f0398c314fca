//! Turns events into lines.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{Format, Sink};
use crate::chain::Chain;
use crate::telemetry::line::{Line, Value, push_field};

/// Crates whose prefix says nothing in a log of this process.
const OURS: [&str; 3] = ["shared::", "ztunnel::", "waypoint::"];

/// A layer that writes one line per event.
pub(super) struct Lines {
    sink: Sink,
    format: Format,
}

impl Lines {
    pub(super) fn new(sink: Sink, format: Format) -> Self {
        Self { sink, format }
    }
}

/// Fields of an event or a span, kept with their kind.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Kept)>,
}

enum Kept {
    Text(String),
    Number(u64),
    Bare(String),
}

impl Kept {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Number(number) => Value::Number(*number),
            Self::Bare(text) => Value::Bare(text),
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), Kept::Number(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.others.push((name, Kept::Text(value.to_owned()))),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.others.push((field.name(), Kept::Text(Chain(value).to_string())));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name, Kept::Bare(format!("{value:?}")))),
        }
    }
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = event.metadata().target();
        let mut scope =
            OURS.iter().find_map(|own| target.strip_prefix(own)).unwrap_or(target).to_owned();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            scope.push(':');
            scope.push_str(span.name());
            if let Some(of_span) = span.extensions().get::<Fields>() {
                scope.push('{');
                for (index, (name, value)) in of_span.others.iter().enumerate() {
                    scope.push_str(if index == 0 { "" } else { " " });
                    push_field(&mut scope, name, &value.value());
                }
                scope.push('}');
            }
        }
        let level = *event.metadata().level();
        let mut line = Line::begin(self.format, level, &scope, &fields.message);
        for (name, value) in &fields.others {
            line.field(name, &value.value());
        }
        self.sink.line(line.end());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::sink::to_memory;

    #[test]
    fn events_become_lines_with_their_spans() {
        let (sink, written) = to_memory();
        let subscriber =
            tracing_subscriber::Registry::default().with(Lines::new(sink, Format::Plain));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("pod", name = "web-1", generation = 3);
            let _entered = span.enter();
            let error = std::io::Error::other("disk full");
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                tries = 2,
                "keeping the old state"
            );
        });
        let line = written();
        let parts: Vec<&str> = line.trim_end().split('\t').skip(1).collect();
        assert_eq!(
            parts,
            [
                "warn",
                "telemetry::logging::layer::tests:pod{name=\"web-1\" generation=3}",
                "keeping the old state",
                "error=\"disk full\" tries=2"
            ]
        );
    }
}
