//! The report as one HTML file that needs nothing else.

use super::cell::{Cell, thousands};
use super::fleet::{RATE, bills};
use super::markup::colour;
use super::record::{Machine, Record};
use super::table::{STEADY, cells, overview, remarks};
use super::{machine, picture};
use crate::grid::{Grid, escape};

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1f2328;--faint:#59636e;--line:#d1d9e0;--ground:#fff}\n\
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--faint:#9198a1;--line:#3d444d;--ground:#0d1117}}\n\
body{font:15px/1.5 sans-serif;color:var(--text);background:var(--ground);max-width:1100px;margin:2rem auto;padding:0 1rem}\n\
h2{margin-top:2.5rem}h3{margin:1.5rem 0 .4rem;font-size:1rem}\n\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n\
th,td{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}\n\
th:first-child,td:first-child{text-align:left}th{font-weight:600}\n\
.faint{color:var(--faint)}svg{max-width:100%;height:auto}svg text{fill:var(--text)}\n\
svg .head{font-weight:600}svg .grid{stroke:var(--line)}\n\
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}\n";

/// The whole page.
pub(super) fn html(record: &Record) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>What a mesh costs</title>\n<style>\n{STYLE}</style>\n\
         <h1>What a mesh costs</h1>\n{}{}",
        origin(record),
        legend(record)
    );
    let mut section = |title: &str, text: &str, body: &str| {
        page.push_str(&format!(
            "<h2>{}</h2>\n<p class=\"faint\">{}</p>\n{body}",
            escape(title),
            escape(text)
        ));
    };
    section("Overview", OVERVIEW, &format!("{}{}", overview(record).html(), notes(record)));
    section("Latency", LATENCY, &distributions(record));
    section("CPU", CPU, &picture::cpu(record));
    section("Throughput", THROUGHPUT, &picture::throughput(record));
    section("Memory", MEMORY, &picture::memory(record));
    if !bills(record).is_empty() {
        let body = format!("{}{}", fleet(record).html(), picture::fleet(record));
        section("In a cluster", &cluster(), &body);
    }
    let tables: String = cells(record)
        .iter()
        .map(|(title, grid)| format!("<h3>{}</h3>\n{}", escape(title), grid.html()))
        .collect();
    section("Every measurement", EVERY, &tables);
    page
}

const OVERVIEW: &str = "Medians over all rounds. Proxy CPU is the sum of both sides.";
const LATENCY: &str = "All rounds together, counted from when each request was due, so that a \
                       stall delays every request that should have been sent meanwhile. Both \
                       scales are logarithmic.";
const CPU: &str = "User and kernel time of every process on the way: the applications (faint), the \
                   proxy on the client's side, the proxy on the server's side (lighter).";
const THROUGHPUT: &str = "As many as possible; on this machine load generator, proxies and server \
                          share the CPUs.";
const MEMORY: &str = "Resident memory of the larger of the two proxies.";
const EVERY: &str = "Median, and in brackets the lowest and the highest round. A cell is saturated \
                     when less than 98 % of its rate was answered in time.";

fn cluster() -> String {
    format!(
        "Computed from the figures of this run, not measured: a sidecar for each pod, a ztunnel for \
         each node, every pod sends {RATE} requests per second. Memory: what no file backs counts \
         for each process, file-backed pages once per node. CPU: requests × CPU per request of both \
         sides at the measured rate nearest to what one proxy carries. What grows with the number \
         of workloads and of connections is left out on both sides."
    )
}

fn origin(record: &Record) -> String {
    let Machine { cpu, cores, kernel, memory_kib, started_s, command, backend, versions, root } =
        &record.machine;
    let versions: Vec<String> =
        versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    let lines = [
        format!(
            "{cpu}, {cores} CPUs, {:.0} GiB, Linux {kernel}, {}, as {}",
            *memory_kib as f64 / 1024.0 / 1024.0,
            machine::date(*started_s),
            if *root { "root" } else { "an ordinary user" }
        ),
        format!("{} rounds of {} s, backend: {backend}", record.rounds, record.secs),
        command.clone(),
        versions.join("; "),
    ];
    let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
    format!("<p class=\"faint\">{}</p>\n", lines.join("<br>\n"))
}

fn legend(record: &Record) -> String {
    let keys = record.modes().into_iter().map(|mode| {
        format!(
            "<span class=\"key\" style=\"background:{}\"></span><b>{}</b> {}<br>\n",
            colour(mode),
            mode.name(),
            escape(&mode.title())
        )
    });
    format!("<p>{}</p>\n", keys.collect::<String>())
}

fn notes(record: &Record) -> String {
    let lines = remarks(record).into_iter().map(|line| format!("<li>{}</li>\n", escape(&line)));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("<ul>\n{lines}</ul>\n") }
}

fn distributions(record: &Record) -> String {
    let measured = |cell: &Cell| record.samples.iter().any(|sample| sample.cell == *cell);
    let cells = [STEADY, Cell::Open { rate: 12_800, connections: 64 }];
    let charts = cells.into_iter().filter(measured).map(|cell| {
        format!("<h3>{}</h3>\n{}", escape(&cell.title()), picture::distribution(record, cell))
    });
    charts.collect()
}

/// The arithmetic as a table.
pub(super) fn fleet(record: &Record) -> Grid {
    let mut grid =
        Grid::new(["data plane", "pods", "nodes", "memory GiB", "cores", "CPU per request from"]);
    for bill in bills(record) {
        grid.line(vec![
            bill.mode.name(),
            thousands(bill.pods),
            bill.nodes.to_string(),
            format!("{:.2}", bill.gib),
            format!("{:.2}", bill.cores),
            bill.basis.title(),
        ]);
    }
    grid
}
