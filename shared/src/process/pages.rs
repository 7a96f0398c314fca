//! Pages of the program that only its start, or its last look at the mesh, needed.
//!
//! The kernel maps a program's file in pieces of 64 KiB around what is touched, and leaves them mapped.
//! Reading the mesh and the settings touches nearly all of it, serving a fraction. What is given
//! back stays in the page cache: a piece that is needed again costs a minor fault, some hundred pieces
//! under load.
//!
//! Invariants: only mappings of files are given back that cannot be written and of which no page was, so
//! that the file still has all that they hold.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

use crate::ready::Ready;

/// How often it is looked at whether there is enough to give back.
const EVERY: Duration = Duration::from_secs(5);
/// What serving needs is less.
const ENOUGH_BYTES: usize = 4 << 20;

/// Gives back again and again what has not been needed since; first when the process is `ready`.
pub async fn give_back_regularly(ready: Ready) {
    loop {
        tokio::time::sleep(EVERY).await;
        if !ready.pending().is_empty() || file_backed().is_ok_and(|bytes| bytes < ENOUGH_BYTES) {
            continue;
        }
        match give_back_program() {
            Ok(bytes) => tracing::trace!(kib = bytes >> 10, "gave back pages of the program"),
            Err(error) => {
                tracing::debug!(%error, "the program's pages stay mapped");
                return;
            }
        }
    }
}

/// Resident bytes of mapped files, by the kernel's own account.
fn file_backed() -> io::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("RssFile:")?.strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<usize>().ok())
        .map(|kib| kib << 10)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Unmaps the program's pages until they are touched again; gives the bytes that were resident. Takes
/// some 2 ms per 100 MiB that the process has, in the kernel.
///
/// # Errors
/// `/proc` cannot be read.
fn give_back_program() -> io::Result<usize> {
    let described = fs::read_to_string("/proc/self/smaps")?;
    Ok(parse(&described).filter(Mapping::is_all_in_its_file).map(|mapping| mapping.forget()).sum())
}

/// A part of the address space, as `/proc/self/smaps` describes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    is_file: bool,
    is_writable: bool,
    resident: usize,
    /// Pages that are no longer the file's, in memory or swapped out.
    own: usize,
}

impl Mapping {
    fn is_all_in_its_file(&self) -> bool {
        self.is_file && !self.is_writable && self.own == 0
    }

    /// Gives the bytes that were resident, and no longer are.
    #[expect(unsafe_code, reason = "what is advised about is memory")]
    fn forget(&self) -> usize {
        let start = std::ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the kernel said that this is mapped, read-only, and no page of it differs from its
        // file: whoever reads it afterwards finds the same bytes.
        let done = unsafe { madvise(start, self.end - self.start, Advice::LinuxDontNeed) };
        if done.is_ok() { self.resident } else { 0 }
    }
}

fn parse(described: &str) -> impl Iterator<Item = Mapping> {
    let mut lines = described.lines().peekable();
    std::iter::from_fn(move || {
        // What cannot be read is a mapping of nothing.
        let mut mapping = heading(lines.next()?).unwrap_or_default();
        while let Some(line) = lines.next_if(|line| heading(line).is_none()) {
            let Some((name, value)) = line.split_once(':') else { continue };
            let kib = value.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<usize>().ok());
            let bytes = kib.unwrap_or(0) << 10;
            match name {
                "Rss" => mapping.resident = bytes,
                "Anonymous" | "Private_Dirty" | "Shared_Dirty" | "Swap" => mapping.own += bytes,
                _ => {}
            }
        }
        Some(mapping)
    })
}

/// `start-end rwxp offset device inode path`.
fn heading(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let permissions = words.next()?;
    let (_offset, _device, inode) = (words.next()?, words.next()?, words.next()?);
    let is_writable = permissions.contains('w');
    Some(Mapping { start, end, is_file: inode != "0", is_writable, ..Mapping::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
5581a0000000-5581a0800000 r-xp 00200000 fe:00 1234    /usr/bin/ztunnel
Size:               8192 kB
Rss:                4096 kB
Pss:                4096 kB
Shared_Dirty:          0 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
";

    fn one(text: &str) -> Mapping {
        let mut all = parse(text);
        let mapping = all.next().unwrap();
        assert_eq!(all.next(), None);
        mapping
    }

    #[test]
    fn what_is_all_in_its_file_is_given_back() {
        let mapping = one(TEXT);
        assert!(mapping.is_all_in_its_file());
        assert_eq!((mapping.start, mapping.end), (0x5581_a000_0000, 0x5581_a080_0000));
        assert_eq!(mapping.resident, 4096 << 10);
        assert_eq!(parse(&TEXT.repeat(3)).count(), 3);
    }

    #[test]
    fn what_was_written_can_be_written_or_is_no_file_is_kept() {
        for (now, was) in [
            ("rw-p", "r-xp"),
            ("0 ", "1234 "),
            ("Anonymous:             4 kB", "Anonymous:             0 kB"),
            ("Private_Dirty:         4 kB", "Private_Dirty:         0 kB"),
            ("Swap:                  4 kB", "Swap:                  0 kB"),
            ("", "5581a0000000-5581a0800000 r-xp"),
        ] {
            let text = TEXT.replace(was, now);
            assert_ne!(text, TEXT, "{was}");
            assert!(!parse(&text).any(|mapping| mapping.is_all_in_its_file()), "{now}");
        }
    }

    #[test]
    fn the_kernel_tells_how_much_of_files_is_mapped() {
        assert!(file_backed().unwrap() > 100 << 10);
    }

    #[test]
    fn this_program_goes_on_with_less_of_it_mapped() {
        let given = give_back_program().unwrap();
        assert!(given > 100 << 10, "{given} bytes");
        let again = give_back_program().unwrap();
        assert!(again < given, "{again} of {given} bytes are mapped again");
    }
}
