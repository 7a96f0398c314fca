//! The form of a log line, plain and JSON: one place, so that the log and the access log look alike.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `time TAB level TAB scope TAB message TAB key=value …`
    #[default]
    Plain,
    /// One object per line: level, time, scope, message, then the fields.
    Json,
}

/// A value of a field.
pub(super) enum Value<'a> {
    /// Quoted when plain.
    Text(&'a str),
    /// A number in both forms.
    Number(u64),
    /// `true` or `false` in both forms.
    Flag(bool),
    /// Not quoted when plain.
    Address(SocketAddr),
    /// Not quoted when plain.
    Bare(&'a dyn fmt::Display),
}

/// One line under construction.
pub(super) struct Line {
    text: String,
    format: Format,
    first: bool,
}

impl Line {
    pub(super) fn begin(format: Format, level: Level, scope: &str, message: &str) -> Self {
        let mut text = String::with_capacity(384);
        match format {
            Format::Plain => {
                push_time(&mut text);
                push(&mut text, format_args!("\t{}\t{scope}\t{message}", name(level)));
            }
            Format::Json => {
                push(&mut text, format_args!("{{\"level\":\"{}\",\"time\":\"", name(level)));
                push_time(&mut text);
                text.push_str("\",\"scope\":");
                push_json(&mut text, scope);
                text.push_str(",\"message\":");
                push_json(&mut text, message);
            }
        }
        Self { text, format, first: true }
    }

    pub(super) fn field(&mut self, key: &str, value: &Value<'_>) {
        match self.format {
            Format::Plain => {
                self.text.push(if self.first { '\t' } else { ' ' });
                self.first = false;
                push_field(&mut self.text, key, value);
            }
            Format::Json => {
                self.text.push(',');
                push_json(&mut self.text, key);
                self.text.push(':');
                match value {
                    Value::Text(value) => push_json(&mut self.text, value),
                    Value::Number(value) => push(&mut self.text, format_args!("{value}")),
                    Value::Flag(value) => push(&mut self.text, format_args!("{value}")),
                    Value::Address(value) => push(&mut self.text, format_args!("\"{value}\"")),
                    Value::Bare(value) => push_json(&mut self.text, &value.to_string()),
                }
            }
        }
    }

    pub(super) fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.field(key, &Value::Text(value));
        }
    }

    pub(super) fn end(mut self) -> String {
        self.text.push_str(match self.format {
            Format::Plain => "\n",
            Format::Json => "}\n",
        });
        self.text
    }
}

/// Adds `key=value` in the plain form.
pub(super) fn push_field(text: &mut String, key: &str, value: &Value<'_>) {
    match value {
        Value::Text(value) => push(text, format_args!("{key}={value:?}")),
        Value::Number(value) => push(text, format_args!("{key}={value}")),
        Value::Flag(value) => push(text, format_args!("{key}={value}")),
        Value::Address(value) => push(text, format_args!("{key}={value}")),
        Value::Bare(value) => {
            push(text, format_args!("{key}="));
            // A line stays one line whatever a value prints.
            let plain = value.to_string();
            text.extend(plain.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

/// RFC 3339 in UTC with microseconds.
fn push_time(text: &mut String) {
    SystemTime.format_time(&mut Writer::new(text)).expect("writing to a string cannot fail");
}

fn push_json(text: &mut String, value: &str) {
    // Nearly all there is: no allocation for it.
    let plain = |byte: u8| matches!(byte, 0x20..0x7f) && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        text.push_str(&serde_json::Value::from(value).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format) -> String {
        let mut line = Line::begin(format, Level::WARN, "access", "connection failed");
        line.field("src.addr", &Value::Address(([10, 0, 0, 1], 80).into()));
        line.field("bytes_sent", &Value::Number(7));
        line.field("error", &Value::Text("said \"no\"\n"));
        line.end()
    }

    #[test]
    fn plain_lines_are_separated_by_tabs_and_quote_text() {
        let line = line(Format::Plain);
        let parts: Vec<&str> = line.split('\t').collect();
        assert_eq!(parts[0].len(), "2026-01-02T03:04:05.678901Z".len());
        assert!(parts[0].ends_with('Z'));
        let rest = ["warn", "access", "connection failed"];
        assert_eq!(parts[1..4], rest);
        assert_eq!(parts[4], "src.addr=10.0.0.1:80 bytes_sent=7 error=\"said \\\"no\\\"\\n\"\n");
    }

    #[test]
    fn json_lines_keep_the_order_of_keys() {
        let line = line(Format::Json);
        let keys: Vec<usize> =
            ["level", "time", "scope", "message", "src.addr", "bytes_sent", "error"]
                .iter()
                .map(|key| line.find(&format!("\"{key}\":")).unwrap())
                .collect();
        assert!(keys.is_sorted());
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["error"], "said \"no\"\n");
        assert_eq!(parsed["bytes_sent"], 7);
    }
}
