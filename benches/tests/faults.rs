//! The comparison under faults works from end to end, with what this repository builds.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    // The comparison runs its own program again, with its arguments or in a role.
    let first = std::env::args().nth(1).unwrap_or_default();
    if first == harness::enter::ROLE || first == COMPARE {
        return benches::faults::main_with(
            std::env::args().skip(usize::from(first == COMPARE) + 1),
        );
    }
    let trial = Trial::test("a_short_run_counts_what_was_lost_and_executed", || {
        run().map_err(|error| Failed::from(format!("{error:#}")))
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

const COMPARE: &str = "__compare";

fn run() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let json = folder.join(format!("faults-{}.json", std::process::id()));
    let result = compare(&json);
    let _ = std::fs::remove_file(json);
    result
}

fn compare(json: &Path) -> anyhow::Result<()> {
    let mut run = Command::new("/proc/self/exe");
    run.arg(COMPARE).args(["--modes", "culvert", "--scenarios", "cut,outage", "--secs", "2"]);
    let told = success(run.arg("--json").arg(json))?;
    ensure!(told.contains("executed twice"), "{told}");
    let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let rows = record["rows"].as_array().context("no rows")?;
    ensure!(rows.len() == 2, "{record}");
    let count = |row: &serde_json::Value, name: &str| row[name].as_u64().unwrap_or_default();
    let (cut, outage) = (&rows[0], &rows[1]);
    ensure!(count(cut, "requests") > 50 && count(cut, "attempts") > 50, "{cut}");
    ensure!(cut["twice"] == 0, "a POST was executed twice: {cut}");
    // Nobody is well, so nobody is answered.
    ensure!(count(outage, "failed") == count(outage, "requests"), "{outage}");
    ensure!(count(outage, "attempts") >= count(outage, "requests"), "{outage}");
    // A file that was written can be read again.
    let mut again = Command::new("/proc/self/exe");
    let told = success(again.arg(COMPARE).arg("--from").arg(json).arg("--markdown"))?;
    ensure!(told.contains("| cut | culvert |"), "{told}");
    Ok(())
}

fn success(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into());
    ensure!(output.status.success(), "{}: {out}{err}", output.status);
    Ok(out)
}
