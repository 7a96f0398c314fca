//! `ztunnel check` and `waypoint check`: what of a mesh directory is in force.
//!
//! Invariants: it reads with the code that serves, so it cannot disagree with a running proxy that
//! starts on the same directory. It exits with 0 only when everything is in force as written.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::feed::dir::{self, Status};
use crate::feed::{Options, Verdict};
use crate::identity::TrustDomain;

const HELP: &str = "\
One line per remark: file:line: object: field: in force or not: cause: reason.

Causes:
  unreadable   the file cannot be read or is no YAML
  unknown      there is no such kind or field; look for a typing error
  unsupported  it is real, but Culvert does not act on it
  shadowed     another object of the same name or address comes first
  invalid      the value cannot be right
  default      in force, with a default for something left out
  risk         in force, with a danger you should know

Exit status: 0 when all is in force, 1 when something is not or the directory cannot be read.

Example:
  ztunnel check ./mesh
  ztunnel check --json ./mesh | jq '.verdicts[] | select(.inForce | not)'";

/// Say what of a mesh directory is in force, and why the rest is not.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP, after_help = "More with --help.")]
pub struct Check {
    /// The mesh directory.
    pub dir: PathBuf,
    /// Print one JSON object: {status, counts, verdicts[]}.
    #[arg(long)]
    pub json: bool,
    /// Trust domain of the mesh.
    #[arg(long, default_value = TrustDomain::DEFAULT, value_parser = TrustDomain::new)]
    pub trust_domain: TrustDomain,
}

/// What was found, in the form that `--json` prints.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    status: Status,
    workloads: usize,
    services: usize,
    policies: usize,
    verdicts: Vec<Verdict>,
}

impl Check {
    /// Checks the directory and writes the report to standard output.
    pub fn run(&self) -> ExitCode {
        let mut out = io::stdout().lock();
        match self.write_to(&mut out) {
            Ok(true) => ExitCode::SUCCESS,
            // A reader that has seen enough (`| head`) changes nothing about the verdict.
            Ok(false) | Err(_) => ExitCode::FAILURE,
        }
    }

    /// Writes the report; true when all is in force.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<bool> {
        let options = Options { trust_domain: self.trust_domain.clone(), ..Options::default() };
        let (compiled, status) = match dir::check(&self.dir, &options) {
            Ok(checked) => checked,
            Err(error) => {
                writeln!(out, "{error}")?;
                return Ok(false);
            }
        };
        let report = Report {
            status,
            workloads: compiled.workloads.len(),
            services: compiled.services.len(),
            policies: compiled.policies.len(),
            verdicts: compiled.verdicts,
        };
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        } else {
            report.write_text(out)?;
        }
        Ok(report.verdicts.iter().all(|verdict| verdict.in_force))
    }
}

impl Report {
    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for verdict in &self.verdicts {
            writeln!(out, "{verdict}")?;
        }
        let refused = self.verdicts.iter().filter(|verdict| !verdict.in_force).count();
        let Status { files, objects, .. } = self.status;
        let (workloads, services, policies) = (self.workloads, self.services, self.policies);
        writeln!(
            out,
            "{objects} objects of {files} files are in force: {workloads} workloads, {services} \
             services, {policies} policies"
        )?;
        match refused {
            0 => writeln!(out, "all is in force as written"),
            _ => writeln!(out, "{refused} things are not in force as written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, json: bool) -> (bool, String) {
        let dir = std::env::temp_dir().join(format!("check-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("mesh.yaml"), text).unwrap();
        let check = Check { dir: dir.clone(), json, trust_domain: TrustDomain::default() };
        let mut out = Vec::new();
        let all_in_force = check.write_to(&mut out).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        (all_in_force, String::from_utf8(out).unwrap())
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: team\n\
                       spec:\n  serviceAccountName: web\nstatus:\n  podIP: 10.0.0.1\n";

    #[test]
    fn all_in_force_is_said_and_is_success() {
        let (all, text) = check("good", POD, false);
        assert!(all);
        assert!(text.ends_with("all is in force as written\n"), "{text}");
    }

    #[test]
    fn what_is_not_in_force_has_file_line_object_field_and_reason() {
        let (all, text) = check("field", &POD.replace("podIP", "podIp"), false);
        assert!(!all);
        let expected = "mesh.yaml:9: Pod/team/web: status.podIp: not in force: unknown: ";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn json_can_be_read_by_programs() {
        let (_, text) = check("json", "kind: [\n", true);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["verdicts"][0]["cause"], "unreadable");
        assert_eq!(report["status"]["absentFiles"], 1);
    }

    #[test]
    fn capable_container_is_a_risk_but_in_force() {
        let text = POD.replace(
            "spec:\n",
            "spec:\n  containers:\n  - name: main\n    securityContext:\n      capabilities: {add: [NET_ADMIN]}\n",
        );
        let text = text.replace(
            "  namespace: team\n",
            "  namespace: team\n  labels: {istio.io/dataplane-mode: ambient}\n",
        );
        let (all, text) = check("risk", &text, false);
        assert!(all, "{text}");
        assert!(text.contains(": in force: risk: container \"main\""), "{text}");
    }

    #[test]
    fn each_field_of_a_virtual_service_that_is_not_in_force_has_its_line() {
        let text = format!(
            "{POD}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: team}}\n\
             spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: web, namespace: team}}\nspec:\n  hosts: [web]\n  http:\n  \
             - match: [{{sourceLabels: {{app: a}}}}, {{uri: {{prefix: /}}}}]\n    \
             route:\n    - destination: {{host: web, subset: v1}}\n"
        );
        let (all, said) = check("virtual", &text, false);
        assert!(!all);
        for expected in [
            "mesh.yaml:22: VirtualService/team/web: spec.http[0].match[0].sourceLabels: not in force: \
             unsupported: ",
            "VirtualService/team/web: spec.http[0].route[0].destination.subset: not in force: invalid: \
             no DestinationRule describes a subset v1 of ",
            "VirtualService/team/web: spec.hosts: not in force: unsupported: service ",
        ] {
            assert!(said.contains(expected), "{expected}\n{said}");
        }
        assert!(said.contains("3 things are not in force as written"), "{said}");
    }

    #[test]
    fn missing_directory_is_no_success() {
        let dir = PathBuf::from("/nonexistent/mesh");
        let check = Check { dir, json: false, trust_domain: TrustDomain::default() };
        let mut out = Vec::new();
        assert!(!check.write_to(&mut out).unwrap());
        assert!(
            String::from_utf8(out).unwrap().starts_with("read mesh directory /nonexistent/mesh")
        );
    }
}
