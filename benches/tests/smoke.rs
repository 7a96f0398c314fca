//! The comparison works from end to end: it measures, writes its files, and reads them again.
//! The figures say nothing: the run is short, and the program is not optimised.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    // The comparison runs its own program again, with its arguments or in a role.
    let first = std::env::args().nth(1).unwrap_or_default();
    if first == harness::enter::ROLE || first == COMPARE {
        return benches::latency::main_with(
            std::env::args().skip(usize::from(first == COMPARE) + 1),
        );
    }
    let trial = Trial::test("a_short_run_measures_and_compares", || {
        run().map_err(|error| Failed::from(format!("{error:#}")))
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

const COMPARE: &str = "__compare";

fn run() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = |name: &str| folder.join(format!("smoke-{}-{name}", std::process::id()));
    let (json, html, svg) = (file("json"), file("html"), file("svg"));
    let result = compare(&json, &html, &svg);
    for file in [json, html, svg] {
        let _ = std::fs::remove_file(file);
    }
    result
}

fn compare(json: &PathBuf, html: &PathBuf, svg: &PathBuf) -> anyhow::Result<()> {
    let mut measure = latency();
    measure.args(["--modes", "direct,culvert-l4,handover"]);
    measure.args(["--cells", "open-3200-16,fresh,bulk-up-1"]);
    measure.args(["--secs", "0.3", "--rounds", "1", "--json"]).arg(json);
    let told = success(measure.arg("--html").arg(html).arg("--svg").arg(svg))?;
    ensure!(told.contains("Overview"), "{told}");
    let run: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let samples = run["samples"].as_array().context("no samples")?;
    ensure!(samples.len() == 9, "{} samples", samples.len());
    for sample in samples {
        let moved = sample["done"].as_u64().unwrap_or_default()
            + sample["bytes"].as_u64().unwrap_or_default();
        ensure!(moved > 0, "nothing went through: {sample}");
        let processes = sample["costs"].as_array().context("no costs")?;
        let proxies = match sample["mode"].as_str() {
            Some("direct") => 0,
            Some("handover") => 1,
            _ => 2,
        };
        ensure!(processes.len() == 2 + proxies, "{sample}");
        for process in processes {
            let spent = &process["user_us"].as_f64().zip(process["kernel_us"].as_f64());
            ensure!(spent.is_some_and(|(user, kernel)| user + kernel > 0.0), "{process}");
        }
    }
    let (page, picture) = (std::fs::read_to_string(html)?, std::fs::read_to_string(svg)?);
    ensure!(page.contains("<polyline") && picture.starts_with("<svg"), "{picture}");
    ensure!(!page.contains("http-equiv") && !page.contains("<script"), "the page stands alone");
    // A run is not worse than itself.
    let told = success(latency().arg("--check").args([json, json]))?;
    ensure!(told.contains(" 0 of ours worse"), "{told}");
    Ok(())
}

fn latency() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMPARE);
    command
}

fn success(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into());
    ensure!(output.status.success(), "{}: {out}{err}", output.status);
    Ok(out)
}
