//! The charts: which figures each of them shows.

use super::cell::{Cell, thousands};
use super::chart::{Bar, Bars, Line, column, frame, latency, quantiles};
use super::cost::Part;
use super::fleet::{Bill, bills};
use super::markup::colour;
use super::record::Record;
use super::summary::{Group, Spread, group, groups};
use super::table::{BULK, FRESH, IDLE, MOST, STEADY, median};

const WIDTH: f64 = 720.0;

type Figure = fn(&Group<'_>) -> Option<Spread>;

/// Latency by quantile at one rate, all modes.
pub(super) fn distribution(record: &Record, cell: Cell) -> String {
    let lines: Vec<Line> = groups(record, cell)
        .iter()
        .map(|group| Line {
            name: group.mode.name(),
            colour: colour(group.mode),
            points: quantiles(&group.histogram()),
        })
        .collect();
    latency(&lines, WIDTH, 360.0)
}

/// CPU per request: the applications faint, then the near and the far proxy.
pub(super) fn cpu(record: &Record) -> String {
    let bars = |cell: Cell, title: &str| Bars {
        title: format!("{title}: CPU µs per request"),
        bars: groups(record, cell)
            .iter()
            .map(|group| {
                let of = |which: fn(Part) -> bool| {
                    group.cpu_us(which).map_or(0.0, |spread| spread.median)
                };
                let (near, far) = (of(|part| part == Part::Near), of(|part| part == Part::Far));
                let between = of(|part| part == Part::Waypoint);
                let applications = of(|part| !part.is_proxy());
                let label = match (group.has_proxies(), between > 0.0) {
                    (true, true) => {
                        format!("{applications:.0} + {near:.0} + {between:.0} + {far:.0}")
                    }
                    (true, false) => format!("{applications:.0} + {near:.0} + {far:.0}"),
                    (false, _) => format!("{applications:.0}"),
                };
                let parts = vec![(applications, 0.3), (near, 1.0), (between, 0.85), (far, 0.7)];
                bar(group, parts, label)
            })
            .collect(),
    };
    column(&[bars(STEADY, &STEADY.title()), bars(MOST, &MOST.title())], WIDTH)
}

/// The most of everything.
pub(super) fn throughput(record: &Record) -> String {
    let rate = |cell: Cell| {
        simple(record, cell, &format!("{}: requests per second", cell.title()), 0, |group| {
            group.rate()
        })
    };
    let bulk = simple(record, BULK, "bulk, 1 stream down: Gbit/s", 1, |group| group.gbit_per_s());
    column(&[rate(MOST), rate(FRESH), bulk], WIDTH)
}

/// Memory of the larger proxy.
pub(super) fn memory(record: &Record) -> String {
    let bars = |cell: Cell, title: &str| {
        simple(record, cell, &format!("MiB per proxy, {title}"), 1, |group| {
            Spread::of(group.proxy_mib())
        })
    };
    column(&[bars(STEADY, &STEADY.title()), bars(IDLE, &IDLE.title())], WIDTH)
}

/// Sidecars and Culvert in clusters.
pub(super) fn fleet(record: &Record) -> String {
    let bills = bills(record);
    let bars = |title: &str, figure: fn(&Bill) -> f64, unit: &str| Bars {
        title: title.to_owned(),
        bars: bills
            .iter()
            .map(|bill| {
                let value = figure(bill);
                let digits = if value < 10.0 { 2 } else { 0 };
                let (pods, nodes) = (thousands(bill.pods), bill.nodes);
                Bar {
                    name: format!("{pods} pods, {nodes} nodes: {}", bill.mode.name()),
                    colour: colour(bill.mode),
                    parts: vec![(value, 1.0)],
                    label: format!("{value:.digits$} {unit}"),
                }
            })
            .collect(),
    };
    let memory = bars("memory of all proxies", |bill| bill.gib, "GiB");
    column(&[memory, bars("CPU of all proxies", |bill| bill.cores, "cores")], WIDTH)
}

/// The picture of the README: the figures that decide, in two columns.
pub(super) fn summary(record: &Record) -> String {
    let half = 400.0;
    let p50: Figure = |group| group.latency_ms(|latency| latency.p50_us);
    let p99: Figure = |group| group.latency_ms(|latency| latency.p99_us);
    let panels = [
        simple(record, STEADY, "p50 in ms, 3,200 req/s", 2, p50),
        simple(record, STEADY, "p99 in ms, 3,200 req/s", 2, p99),
        simple(record, STEADY, "proxy CPU µs per request, 3,200 req/s", 0, |group| {
            group.proxy_cpu_us()
        }),
        simple(record, MOST, "requests per second at most", 0, |group| group.rate()),
        simple(record, STEADY, "MiB per proxy", 1, |group| Spread::of(group.proxy_mib())),
        simple(record, BULK, "bulk in Gbit/s, 1 stream", 1, |group| group.gbit_per_s()),
    ];
    // Readers of the README may prefer a dark page.
    let mut svg = "<style>text{fill:#24292f}.head{font-weight:bold}\
                   @media(prefers-color-scheme:dark){text{fill:#d0d7de}}</style>\n"
        .to_owned();
    let mut top = 0.0;
    let panels: Vec<Bars> = panels.into_iter().filter(|panel| !panel.bars.is_empty()).collect();
    for row in panels.chunks(2) {
        for (number, panel) in row.iter().enumerate() {
            svg.push_str(&panel.draw(number as f64 * (half + 20.0), top, half));
        }
        top += row.iter().map(Bars::height).fold(0.0, f64::max) + 8.0;
    }
    frame(&svg, 2.0 * half + 20.0, top)
}

/// A bar per mode that has the figure.
fn simple(record: &Record, cell: Cell, title: &str, digits: usize, figure: Figure) -> Bars {
    let bars = record.modes().into_iter().filter_map(|mode| {
        let group = group(record, cell, mode)?;
        let spread = figure(&group)?;
        // A mode without proxies has none of their figures.
        let saturated = if group.is_saturated() { " saturated" } else { "" };
        let label = format!("{}{saturated}", median(Some(spread), digits));
        (spread.median > 0.0).then(|| bar(&group, vec![(spread.median, 1.0)], label))
    });
    Bars { title: title.to_owned(), bars: bars.collect() }
}

fn bar(group: &Group<'_>, parts: Vec<(f64, f64)>, label: String) -> Bar {
    Bar { name: group.mode.name(), colour: colour(group.mode), parts, label }
}
