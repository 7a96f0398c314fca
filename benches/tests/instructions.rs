//! Counting instructions works from end to end. The figures say little: the program is not optimised.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

const COUNT: &str = "__count";

fn main() -> ExitCode {
    // The benchmark runs its own program again.
    if std::env::args().nth(1).as_deref() == Some(COUNT) {
        return benches::instructions::main_with(&[COUNT], std::env::args().skip(2));
    }
    // As everywhere: what is missing is ignored, in CI a failure.
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    let ignored = !valgrind && std::env::var_os("CI").is_none();
    let trial = |name: &str, run: fn() -> anyhow::Result<()>| {
        Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let trials = vec![
        trial("more_policies_take_more_instructions_and_the_check_sees_it", more)
            .with_ignored_flag(ignored),
        trial("without_valgrind_one_line_says_how_to_get_it", missing),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COUNT).args(args);
    command
}

fn more() -> anyhow::Result<()> {
    let json = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("instructions-{}.json", std::process::id()));
    let json = json.to_str().context("a path in UTF-8")?;
    let output = program(&["decide: 1", "--json", json]).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {complaint}", output.status);
    let mut run: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let of = |name: &str| run["instructions"][name].as_u64().with_context(|| name.to_owned());
    let (few, many) = (of("decide: 1 policy")?, of("decide: 100 policies")?);
    ensure!(few > 50 && many > 20 * few, "{few} and {many}");

    ensure!(program(&["--check", json, json]).status()?.success(), "no worse than itself");
    run["instructions"]["decide: 1 policy"] = (few * 2).into();
    let worse = format!("{json}.worse");
    std::fs::write(&worse, run.to_string())?;
    let code = program(&["--check", json, &worse]).output()?.status.code();
    std::fs::remove_file(json)?;
    std::fs::remove_file(&worse)?;
    ensure!(code == Some(1), "{code:?}");
    Ok(())
}

fn missing() -> anyhow::Result<()> {
    let output = program(&["decide: 1"]).env("PATH", "/nonexistent").output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {complaint}", output.status);
    ensure!(complaint.contains("install the package `valgrind`"), "{complaint}");
    Ok(())
}
