//! The report, for a person.

use harness::role::sniff;

use crate::flows::{Flow, milliseconds};
use crate::restart::Restart;
use crate::say;
use crate::scene::Scene;

/// All that was seen.
pub(crate) struct Report<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) flows: Vec<Flow>,
    pub(crate) restart: Restart,
    pub(crate) wire: sniff::Report,
}

impl Report<'_> {
    /// Prints it; whether everything went as it should.
    pub(crate) fn print(&self) -> bool {
        say("\n════ What happened ════════════════════════════════════════════════════");
        let mut good = true;
        for flow in &self.flows {
            good &= flow.good;
            say(&format!("\n{} {}", mark(flow.good), flow.title));
            say(&format!("    saw         {}", flow.outcome));
            say(&format!("    path        {}", flow.path));
            say(&format!("    identities  {}", flow.identities));
            if let Some(policy) = &flow.policy {
                say(&format!("    policy      {policy}"));
            }
        }
        good &= self.print_restart();
        good &= self.print_wire();
        say(if good {
            "\nEverything went as it should."
        } else {
            "\nSomething did not go as it should: look for the lines marked with ✗."
        });
        good
    }

    fn print_restart(&self) -> bool {
        let Restart { load, open, open_for, later, .. } = &self.restart;
        let new_good = load.failed() == 0 && load.ok > 0;
        let later_good = later.broken.is_none() && later.ticks > 0;
        say(&format!("\n{} restart of ztunnel-b under traffic", mark(new_good && later_good)));
        let why: Vec<_> =
            load.errors.iter().map(|(why, count)| format!("{count}× {why}")).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
        say(&format!(
            "    new connections    {} opened all the while, {} refused or reset{why}; p99 {}",
            load.ok + load.failed(),
            load.failed(),
            milliseconds(load.p99_us)
        ));
        let fate = match (open_for, &open.broken) {
            (Some(lasted), Some((why, _))) => format!(
                "used for {:.1} s more in the old process, until its drain deadline ({why}{})",
                lasted.as_secs_f64(),
                if self.restart.told_drained { "; told as DRAINED" } else { "" }
            ),
            _ => "never interrupted".to_owned(),
        };
        let (ticks, longest) = (open.ticks, open.longest_ms);
        say(&format!(
            "    open connection    {ticks} exchanges, longest wait {longest} ms; {fate}"
        ));
        say(&format!(
            "    opened afterwards  {} exchanges through the new process, longest wait {} ms",
            later.ticks, later.longest_ms
        ));
        new_good && later_good
    }

    fn print_wire(&self) -> bool {
        let meshed = self.scene.meshed();
        let packets: u64 = self.wire.between(&meshed).map(|seen| seen.packets).sum();
        match self.wire.all_tls(&meshed) {
            Ok(streams) => {
                say("\n✓ the wire between the nodes");
                say(&format!(
                    "    {streams} TCP streams between pods of the mesh, {packets} packets with data: \
                     each one TLS from its first byte"
                ));
                true
            }
            Err(error) => {
                say("\n✗ the wire between the nodes");
                say(&format!("    {error:#}"));
                false
            }
        }
    }
}

fn mark(good: bool) -> char {
    if good { '✓' } else { '✗' }
}
