//! Any text as a file of a mesh directory, alone and beside a good file.
//!
//! Laws: nothing panics; the picture published once differs from itself by nothing; each verdict
//! has a place and a reason; a bad file takes nothing from a good one; connections in it go where
//! they may (`routes`).

use shared::feed::{Cause, Options, SourceFile, objects};
use shared::mesh::writer;

use crate::{planted, routes};

/// A file that comes first, so that nothing in another one can shadow what it holds.
const GOOD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: a}\n\
                    spec: {serviceAccountName: a, nodeName: n}\nstatus: {podIP: 240.0.0.1}\n";

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.to_owned() };
    let text = String::from_utf8_lossy(input);
    let options = Options { node: Some("n".into()), ..Options::default() };
    let files = [file("a.yaml", GOOD), file("b.yaml", &text)];
    let compiled = objects(&files, &options);
    let (mut writer, reader) = writer();
    writer.apply(compiled.changes(writer.mesh()));
    assert_eq!(compiled.changes(writer.mesh()), [], "the difference to itself");
    let mesh = reader.load();
    assert_eq!(mesh.counts().0, compiled.workloads.len());
    assert!(compiled.local_pods.iter().all(|pod| mesh.workload(&pod.uid).is_some()));
    routes::obey_the_laws(&mesh);
    for verdict in &compiled.verdicts {
        assert!(!verdict.file.is_empty() && !verdict.reason.is_empty());
        planted(verdict.cause == Cause::Unknown && verdict.object.starts_with("Service/"));
    }
    // Unless it was given the same address.
    if !compiled.verdicts.iter().any(|verdict| *verdict.object == *"Pod/a/a") {
        assert!(mesh.workload_by_addr("", [240, 0, 0, 1].into()).is_some(), "the good file");
    }
}
