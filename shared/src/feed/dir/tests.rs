//! What the directory does with good, bad and changing files.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::feed::Cause;
use crate::mesh::{Reader, Uid, writer};

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("culvert-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn serve(&self) -> (Feed, Reader) {
        let (writer, reader) = writer();
        let options = Options { node: Some("node-a".into()), ..Options::default() };
        (Feed::start(&self.0, options, writer).unwrap(), reader)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pod(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: team}}\n\
         spec: {{nodeName: node-a, serviceAccountName: {name}}}\nstatus: {{podIP: {ip}}}\n---\n"
    )
}

fn has(reader: &Reader, name: &str) -> bool {
    let uid = Uid(format!("Kubernetes//Pod/team/{name}").into());
    reader.load().workload(&uid).is_some()
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn compile_one(text: &str) -> Compiled {
    let file = SourceFile { path: "mesh.yaml".into(), text: text.to_owned() };
    objects(&[file], &Options::default())
}

/// Line, field and cause of each verdict that says something is not in force.
fn refused(compiled: &Compiled) -> Vec<(u32, &str, Cause)> {
    let refused = compiled.verdicts.iter().filter(|verdict| !verdict.in_force);
    refused.map(|verdict| (verdict.line, &*verdict.field, verdict.cause)).collect()
}

#[test]
fn good_object_has_no_verdict() {
    let compiled = compile_one(&pod("web", "10.0.0.1"));
    assert_eq!(compiled.verdicts, []);
    assert_eq!(compiled.workloads.len(), 1);
}

#[test]
fn unknown_kind_is_named_and_others_stay() {
    let text = pod("web", "10.0.0.1") + "apiVersion: v9\nkind: Wobble\nmetadata: {name: x}\n";
    let compiled = compile_one(&text);
    assert_eq!(refused(&compiled), [(7, "kind", Cause::Unknown)]);
    assert_eq!(&*compiled.verdicts[0].object, "Wobble/x");
    assert_eq!(compiled.workloads.len(), 1);
}

#[test]
fn known_kind_without_effect_is_unsupported() {
    let route = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: r}\n";
    assert_eq!(refused(&compile_one(route)), [(1, "kind", Cause::Unsupported)]);
}

#[test]
fn unknown_field_is_named_and_the_object_is_in_force() {
    let text = pod("web", "10.0.0.1").replace("spec: {", "spec: {nodename: x, ");
    let compiled = compile_one(&text);
    assert_eq!(refused(&compiled), [(4, "spec.nodename", Cause::Unknown)]);
    assert_eq!(compiled.workloads.len(), 1);
}

#[test]
fn wrong_type_is_invalid_and_the_object_absent() {
    let text = pod("web", "10.0.0.1").replace("nodeName: node-a", "nodeName: [node-a]");
    let compiled = compile_one(&text);
    assert_eq!(refused(&compiled), [(4, "spec.nodeName", Cause::Invalid)]);
    assert!(compiled.workloads.is_empty());
}

#[test]
fn duplicate_address_goes_to_the_first_by_name() {
    let text = pod("zoo", "10.0.0.1") + &pod("ant", "10.0.0.1");
    let compiled = compile_one(&text);
    assert_eq!(refused(&compiled), [(1, "status.podIPs", Cause::Shadowed)]);
    assert!(compiled.verdicts[0].reason.contains("belongs to Pod/team/ant (mesh.yaml:7)"));
    assert_eq!(&*compiled.workloads.values().next().unwrap().name, "ant");
}

#[test]
fn overlapping_virtual_addresses_go_to_the_first_by_name() {
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: team}}\n\
             spec: {{clusterIP: 10.1.0.1, ports: [{{port: 80}}]}}\n---\n"
        )
    };
    let compiled = compile_one(&(service("b") + &service("a")));
    assert_eq!(refused(&compiled), [(1, "spec.clusterIPs", Cause::Shadowed)]);
    let vips: Vec<_> =
        compiled.services.values().map(|service| (&*service.name, service.vips.len())).collect();
    assert_eq!(vips, [("a", 1), ("b", 0)]);
}

#[test]
fn missing_service_account_means_default_and_says_so() {
    let text = pod("web", "10.0.0.1").replace(", serviceAccountName: web", "");
    let compiled = compile_one(&text);
    assert_eq!(refused(&compiled), []);
    assert_eq!(compiled.verdicts[0].cause, Cause::Default);
    let workload = compiled.workloads.values().next().unwrap();
    assert_eq!(workload.identity.service_account(), "default");
}

#[test]
fn same_object_twice_keeps_the_first() {
    let compiled = compile_one(&(pod("web", "10.0.0.1") + &pod("web", "10.0.0.2")));
    assert_eq!(refused(&compiled), [(7, "", Cause::Shadowed)]);
    assert_eq!(compiled.workloads.len(), 1);
}

#[test]
fn lists_hold_objects() {
    let list = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n\
                - apiVersion: v1\n  kind: Namespace\n  metadata: {name: team}\n\
                - apiVersion: v1\n  kind: Pod\n  metadata: {name: web, namespace: team}\n  \
                spec: {serviceAccountName: web}\n  status: {podIP: 10.0.0.1}\n";
    let compiled = compile_one(list);
    assert_eq!(compiled.verdicts, []);
    assert_eq!(compiled.workloads.len(), 1);
}

#[test]
fn unreadable_directory_is_an_error_at_start() {
    let missing = Scratch::new().0.join("missing");
    let error = Feed::start(&missing, Options::default(), writer().0).unwrap_err();
    assert!(error.to_string().starts_with("read mesh directory"), "{error}");
}

#[test]
fn directory_that_vanishes_keeps_its_objects() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", &pod("web", "10.0.0.1"));
    let (feed, reader) = scratch.serve();
    fs::remove_dir_all(&scratch.0).unwrap();
    eventually("a verdict", || !feed.verdicts().is_empty());
    assert!(has(&reader, "web"));
    assert!(feed.verdicts()[0].reason.contains("all objects stay in force"));
}

#[test]
fn changes_are_seen_and_removed_files_take_their_objects_along() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", &pod("web", "10.0.0.1"));
    let (feed, reader) = scratch.serve();
    assert!(has(&reader, "web"));
    assert_eq!(feed.local_pods().borrow().len(), 1);
    scratch.write("b.yml", &pod("api", "10.0.0.2"));
    eventually("the new pod", || has(&reader, "api"));
    let before = reader.load().generation();
    fs::remove_file(scratch.0.join("a.yaml")).unwrap();
    eventually("the pod is gone", || !has(&reader, "web"));
    assert_eq!(reader.load().generation(), before + 1);
    eventually("the local pod is gone", || feed.local_pods().borrow().len() == 1);
}

#[test]
fn half_written_file_keeps_its_last_good_objects() {
    let scratch = Scratch::new();
    let good = pod("web", "10.0.0.1") + &pod("api", "10.0.0.2");
    scratch.write("a.yaml", &good);
    let (feed, reader) = scratch.serve();
    scratch.write("a.yaml", &good[..good.len() - 20]);
    eventually("a verdict", || !feed.verdicts().is_empty());
    let verdict = feed.verdicts()[0].clone();
    assert_eq!(
        (&*verdict.file, verdict.line > 5, verdict.cause),
        ("a.yaml", true, Cause::Unreadable)
    );
    assert!(has(&reader, "web") && has(&reader, "api"));
    assert_eq!(feed.status().borrow().absent_files, 0);
    scratch.write("a.yaml", &good);
    eventually("no verdict", || feed.verdicts().is_empty());
}

#[test]
fn file_that_was_never_good_is_absent_and_status_says_so() {
    let scratch = Scratch::new();
    scratch.write("bad.yaml", "kind: [Pod\n");
    scratch.write("good.yaml", &pod("web", "10.0.0.1"));
    let (feed, reader) = scratch.serve();
    assert!(has(&reader, "web"));
    let expected = Status { files: 2, objects: 1, absent_files: 1 };
    assert_eq!(*feed.status().borrow(), expected);
    assert!(feed.verdicts()[0].reason.ends_with("its objects are absent"));
}

#[test]
fn file_that_is_no_text_or_too_large_is_refused_by_its_reason() {
    let scratch = Scratch::new();
    fs::write(scratch.0.join("binary.yaml"), [0xff, 0xfe]).unwrap();
    let large = fs::File::create(scratch.0.join("large.yaml")).unwrap();
    large.set_len((64 << 20) + 1).unwrap();
    scratch.write("good.yaml", &pod("web", "10.0.0.1"));
    let (feed, reader) = scratch.serve();
    assert!(has(&reader, "web"));
    let verdicts = feed.verdicts();
    let told: Vec<_> =
        verdicts.iter().map(|verdict| (&*verdict.file, &*verdict.reason, verdict.cause)).collect();
    let absent = |reason: &str| format!("{reason}; its objects are absent");
    assert_eq!(
        told,
        [
            ("binary.yaml", &*absent("is not UTF-8"), Cause::Unreadable),
            ("large.yaml", &*absent("is larger than 64 MiB"), Cause::Unreadable),
        ]
    );
}

#[test]
fn invalid_object_keeps_its_last_good_version() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", &(pod("web", "10.0.0.1") + &pod("api", "10.0.0.2")));
    let (feed, reader) = scratch.serve();
    scratch.write("a.yaml", &(pod("web", "10.0.0.x") + &pod("api", "10.0.0.3")));
    eventually("verdicts", || feed.verdicts().len() == 2);
    let mesh = reader.load();
    assert!(mesh.workload_by_addr("", "10.0.0.1".parse().unwrap()).is_some(), "web as it was");
    assert!(mesh.workload_by_addr("", "10.0.0.3".parse().unwrap()).is_some(), "api as it is");
}

#[test]
fn temporary_files_and_links_to_the_outside_are_not_read() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    outside.write("secret.yaml", &pod("secret", "10.0.0.9"));
    for name in [".hidden.yaml", "a.yaml~", "#a.yaml", "a.yaml.swp", "a.txt"] {
        scratch.write(name, &pod("temporary", "10.0.0.8"));
    }
    symlink(outside.0.join("secret.yaml"), scratch.0.join("link.yaml")).unwrap();
    symlink(&outside.0, scratch.0.join("linked-dir")).unwrap();
    let (feed, reader) = scratch.serve();
    assert_eq!(reader.load().counts(), (0, 0, 0));
    let verdicts = feed.verdicts();
    assert_eq!(verdicts.len(), 1);
    assert!(verdicts[0].reason.contains("leaves the mesh directory"));
}

#[test]
fn mounted_config_map_changes_by_its_data_link() {
    let scratch = Scratch::new();
    let publish = |version: &str, text: &str| {
        fs::create_dir(scratch.0.join(version)).unwrap();
        scratch.write(&format!("{version}/mesh.yaml"), text);
        symlink(version, scratch.0.join("..data_tmp")).unwrap();
        fs::rename(scratch.0.join("..data_tmp"), scratch.0.join("..data")).unwrap();
    };
    publish("..1", &pod("old", "10.0.0.1"));
    symlink("..data/mesh.yaml", scratch.0.join("mesh.yaml")).unwrap();
    let (_feed, reader) = scratch.serve();
    assert!(has(&reader, "old"));
    publish("..2", &pod("new", "10.0.0.2"));
    eventually("the new version", || has(&reader, "new") && !has(&reader, "old"));
}

#[test]
fn pipe_is_refused_without_blocking() {
    let scratch = Scratch::new();
    let path = scratch.0.join("pipe.yaml");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let (feed, _reader) = scratch.serve();
    assert!(feed.verdicts()[0].reason.contains("not a regular file"));
}

#[test]
fn a_reading_that_says_nothing_new_is_recognised() {
    let mut state = State::new(Options::default());
    let mut read = |content: Option<Content>| {
        state.take(content.into_iter().map(|content| ("a.yaml".into(), content)).collect())
    };
    let namespace = |name| {
        Some(Content::Text(format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
        )))
    };
    let bad = || Some(Content::Text("a: [".to_owned()));
    let unreadable = || Some(Content::Unreadable("no permission".to_owned()));
    for (content, differs) in [
        (None, false),
        (namespace("one"), true),
        (namespace("one"), false),
        (Some(Content::Unchanged), false),
        (namespace("two"), true),
        (bad(), true),
        (bad(), false),
        (unreadable(), true),
        (unreadable(), false),
        (namespace("two"), true),
        (None, true),
        (None, false),
    ] {
        assert_eq!(read(content.clone()), differs, "{content:?}");
    }
}
