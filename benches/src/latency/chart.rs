//! Charts as SVG, drawn here: no script, no font, nothing from elsewhere.
//! Colours of text and lines are classes; whoever embeds a chart says what they are.

use crate::grid::escape;

/// A bar: its name, its parts from left to right, and what is written behind it.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) colour: &'static str,
    /// Value and opacity.
    pub(super) parts: Vec<(f64, f64)>,
    pub(super) label: String,
}

/// A group of bars under a heading, all on one scale.
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

const BAR: f64 = 20.0;
const GAP: f64 = 6.0;
/// Width of a letter, about; names are given the room that the longest needs.
const LETTER: f64 = 6.6;
const LEAST_NAMES: f64 = 92.0;
const LABELS: f64 = 120.0;
const HEADING: f64 = 28.0;

impl Bars {
    /// Height when drawn.
    pub(super) fn height(&self) -> f64 {
        HEADING + self.bars.len() as f64 * (BAR + GAP) + GAP
    }

    /// Room for the names.
    fn names(&self) -> f64 {
        let longest = self.bars.iter().map(|bar| bar.name.chars().count()).max();
        (longest.unwrap_or_default() as f64 * LETTER + 12.0).max(LEAST_NAMES)
    }

    /// Draws it at `(left, top)`, `width` wide.
    pub(super) fn draw(&self, left: f64, top: f64, width: f64) -> String {
        let whole = |bar: &Bar| bar.parts.iter().map(|(value, _)| value).sum::<f64>();
        let most = self.bars.iter().map(whole).fold(f64::MIN_POSITIVE, f64::max);
        let names = self.names();
        let scale = (width - names - LABELS) / most;
        let mut svg = format!(
            "<text class=\"head\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>\n",
            top + 16.0,
            escape(&self.title)
        );
        for (number, bar) in self.bars.iter().enumerate() {
            let y = top + HEADING + number as f64 * (BAR + GAP);
            let middle = y + BAR / 2.0 + 4.0;
            svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>\n",
                left + names - 8.0,
                escape(&bar.name)
            ));
            let mut x = left + names;
            for (value, opacity) in &bar.parts {
                let wide = (value * scale).max(0.0);
                svg.push_str(&format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{BAR}\" \
                     fill=\"{}\" fill-opacity=\"{opacity}\"/>\n",
                    bar.colour
                ));
                x += wide;
            }
            svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{middle:.1}\">{}</text>\n",
                x + 6.0,
                escape(&bar.label)
            ));
        }
        svg
    }
}

/// A line: its name and its points.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: &'static str,
    /// Part of all requests (0 to 1) and their latency in milliseconds, growing.
    pub(super) points: Vec<(f64, f64)>,
}

const QUANTILES: [(f64, &str); 6] = [
    (0.0, "0 %"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
];
/// The last quantile that is drawn.
const LAST: f64 = 0.9999;

/// Latency by quantile. Each step to the right is a tenth of the requests of the step before; each
/// step upwards is ten times the latency.
pub(super) fn latency(lines: &[Line], width: f64, height: f64) -> String {
    let (left, right, top, bottom) = (56.0, 36.0, 12.0, 40.0);
    let values = || lines.iter().flat_map(|line| &line.points).map(|(_, ms)| *ms);
    let low = values().fold(f64::INFINITY, f64::min).max(0.001).log10().floor();
    let high = values().fold(0.001, f64::max).log10().ceil().max(low + 1.0);
    let place = |quantile: f64| -(1.0 - quantile.min(LAST)).log10();
    let x = |quantile: f64| left + place(quantile) / place(LAST) * (width - left - right);
    let y = |ms: f64| {
        let part = (ms.max(0.001).log10() - low) / (high - low);
        height - bottom - part * (height - top - bottom)
    };
    let mut svg = String::new();
    for (quantile, name) in QUANTILES {
        let x = x(quantile);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>\n",
            height - bottom,
            height - bottom + 18.0
        ));
    }
    for power in low as i32..=high as i32 {
        let ms = 10_f64.powi(power);
        let y = y(ms);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>\n",
            width - right,
            left - 6.0,
            y + 4.0
        ));
    }
    for line in lines {
        let points: Vec<String> = line
            .points
            .iter()
            .filter(|(quantile, _)| *quantile <= LAST)
            .map(|(quantile, ms)| format!("{:.1},{:.1}", x(*quantile), y(*ms)))
            .collect();
        svg.push_str(&format!(
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"{}\">\
             <title>{}</title></polyline>\n",
            line.colour,
            points.join(" "),
            escape(&line.name)
        ));
    }
    frame(&svg, width, height)
}

/// Cumulates a histogram (upper bound in microseconds, count) to the points of a line.
pub(super) fn quantiles(histogram: &[(u64, u64)]) -> Vec<(f64, f64)> {
    let all: u64 = histogram.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    let mut points = Vec::new();
    for (bound, count) in histogram {
        let from = below as f64 / all.max(1) as f64;
        below += count;
        // Both ends of the step: the first request and the last that took this long.
        points.push((from, *bound as f64 / 1000.0));
        points.push((below as f64 / all.max(1) as f64, *bound as f64 / 1000.0));
    }
    points
}

/// Several groups of bars, one below the other.
pub(super) fn column(groups: &[Bars], width: f64) -> String {
    let mut top = 0.0;
    let mut svg = String::new();
    for group in groups.iter().filter(|group| !group.bars.is_empty()) {
        svg.push_str(&group.draw(0.0, top, width));
        top += group.height();
    }
    frame(&svg, width, top)
}

/// The picture around what was drawn.
pub(super) fn frame(inside: &str, width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"12\">\n{inside}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_end_with_all_requests() {
        let points = quantiles(&[(100, 90), (1000, 10)]);
        assert_eq!(points, [(0.0, 0.1), (0.9, 0.1), (0.9, 1.0), (1.0, 1.0)]);
        assert!(quantiles(&[]).is_empty());
    }

    #[test]
    fn the_longest_bar_fits() {
        let bar = |value: f64| Bar {
            name: "a & b".to_owned(),
            colour: "#000",
            parts: vec![(value, 1.0), (value, 0.5)],
            label: String::new(),
        };
        let bars = Bars { title: "t".to_owned(), bars: vec![bar(1.0), bar(4.0)] };
        let svg = bars.draw(0.0, 0.0, 500.0);
        // Half of what names and labels leave.
        let half = (500.0 - bars.names() - LABELS) / 2.0;
        assert_eq!(svg.matches(&format!("width=\"{half:.1}\"")).count(), 2, "{svg}");
        assert!(svg.contains("a &amp; b"));
    }
}
