//! Instructions of the parts by themselves, which stay the same on a busy machine. Kernels are not
//! counted.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `operation` | what is counted |
//! | `callgrind` | this program again, under valgrind |
//! | `record` | what is kept, told and compared |

mod args;
mod callgrind;
mod operation;
mod record;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser as _;

use args::Args;
use operation::OPERATIONS;
use record::Record;

use crate::terminal::{ended, print, read, say, writable, write};

/// Makes the program perform one operation a number of times.
const PERFORM: &str = "__perform";

/// The `main` of the benchmark.
pub fn main() -> ExitCode {
    main_with(&[], std::env::args().skip(1))
}

/// The same with other arguments than those of the process; `before` leads here when the program is
/// started again.
pub fn main_with(before: &[&str], line: impl Iterator<Item = String>) -> ExitCode {
    let line: Vec<String> = line.collect();
    if let [perform, name, count] = &line[..]
        && perform == PERFORM
    {
        return ended(perform_one(name, count).map(|()| true));
    }
    let args = Args::parse_from(std::iter::once("instructions".to_owned()).chain(line));
    ended(match &args.check[..] {
        [old, new] => compare(old, new),
        _ => count(before, &args).map(|()| true),
    })
}

fn perform_one(name: &str, count: &str) -> anyhow::Result<()> {
    let operation = OPERATIONS.iter().find(|one| one.name == name);
    let operation = operation.with_context(|| format!("no operation is called {name}"))?;
    (operation.perform)(count.parse()?)
}

fn compare(old: &std::path::Path, new: &std::path::Path) -> anyhow::Result<bool> {
    let comparison = read::<Record>(old)?.compare(&read(new)?);
    ensure!(comparison.compared > 0, "the runs have no operation in common");
    print(&comparison.tell());
    Ok(comparison.worse == 0)
}

fn count(before: &[&str], args: &Args) -> anyhow::Result<()> {
    callgrind::present()?;
    args.json.as_deref().map(writable).transpose()?;
    let mut record = Record::default();
    for operation in OPERATIONS.iter().filter(|one| one.name.contains(&args.only)) {
        match callgrind::count(before, operation) {
            Ok(each) => {
                say(&format!("{:<40} {each:>12}", operation.name));
                record.instructions.insert(operation.name.to_owned(), each);
            }
            Err(error) => {
                say(&format!("{:<40} cannot be counted: {error:#}", operation.name));
                record.failed.push(operation.name.to_owned());
            }
        }
    }
    write(args.json.as_deref(), || Ok(serde_json::to_string_pretty(&record)? + "\n"))?;
    print(&record.tell(args.markdown));
    ensure!(!record.instructions.is_empty(), "nothing was counted");
    Ok(())
}
