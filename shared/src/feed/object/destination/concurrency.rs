//! The annotation `culvert.dev/adaptive-concurrency`.

use crate::feed::fields::Fields;
use crate::feed::verdict::Cause;
use crate::mesh::Concurrency;

/// `"true"`, or the bounds as `LEAST-MOST`.
pub(in crate::feed::object) const ANNOTATION: &str = "culvert.dev/adaptive-concurrency";

/// Envoy's least and most.
const DEFAULT: Concurrency = Concurrency { least: 3, most: 1_000 };
/// Beyond it a limit limits nothing.
const MOST: u32 = 1_000_000;

pub(super) fn read(root: &Fields<'_>) -> Option<Concurrency> {
    let annotations = root.fields("metadata")?.fields("annotations")?;
    let text = annotations.text(ANNOTATION)?;
    let bounds = parse(text);
    if bounds.is_none() {
        let reason = format!(
            "\"{text}\" is neither \"true\" nor bounds; write them as 3-1000: numbers of 1 to {MOST}, the \
             smaller first"
        );
        annotations.report(ANNOTATION, Cause::Invalid, reason);
    }
    bounds
}

fn parse(text: &str) -> Option<Concurrency> {
    if text == "true" {
        return Some(DEFAULT);
    }
    let (least, most) = text.split_once('-')?;
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| is_number && (1..=MOST).contains(number))
    };
    let bounds = Concurrency { least: number(least)?, most: number(most)? };
    (bounds.least <= bounds.most).then_some(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_in_one_way() {
        assert_eq!(parse("true"), Some(DEFAULT));
        assert_eq!(parse("10-500"), Some(Concurrency { least: 10, most: 500 }));
        assert_eq!(parse("7-7"), Some(Concurrency { least: 7, most: 7 }));
        for text in [
            "",
            "false",
            "on",
            "10",
            "-",
            "0-5",
            "5-",
            "-5",
            "6-5",
            "+1-5",
            "1-5-9",
            "1 - 5",
            "1-1000001",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
