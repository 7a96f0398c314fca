//! The mesh directory of a test: Kubernetes documents, each edit atomic by rename.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of Kubernetes YAML.
#[derive(Debug)]
pub struct MeshDir {
    path: PathBuf,
    edits: AtomicU32,
}

impl MeshDir {
    /// Makes the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self { path, edits: AtomicU32::new(0) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes or replaces one file; readers see the old or the new one, never a part.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &str, yaml: &str) -> io::Result<()> {
        let edit = self.edits.fetch_add(1, Ordering::Relaxed);
        let draft = self.path.join(format!(".{file}.{edit}.tmp"));
        fs::write(&draft, yaml)?;
        fs::rename(&draft, self.path.join(file))
    }

    /// Takes one file away.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove(&self, file: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(file))
    }

    /// Writes a service whose endpoints are the pods that carry the label `app: <app>`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn service(&self, service: &Service<'_>) -> io::Result<()> {
        self.write(&format!("service-{}-{}.yaml", service.namespace, service.name), &service.yaml())
    }

    /// Writes an authorization policy for the pods with label `app: <app>`; `rules` is the YAML
    /// below `spec.rules`, indented by two.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn policy(&self, name: &str, app: &str, action: &str, rules: &str) -> io::Result<()> {
        let yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  \
             name: {name}\n  namespace: default\nspec:\n  selector:\n    matchLabels:\n      \
             app: {app}\n  action: {action}\n  rules:\n{rules}"
        );
        self.write(&format!("policy-{name}.yaml"), &yaml)
    }

    /// Takes a policy of `policy` away.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove_policy(&self, name: &str) -> io::Result<()> {
        self.remove(&format!("policy-{name}.yaml"))
    }

    /// Demands mutual TLS of the pods with label `app: <app>`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn strict(&self, app: &str) -> io::Result<()> {
        let yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  \
             name: strict-{app}\n  namespace: default\nspec:\n  selector:\n    matchLabels:\n      \
             app: {app}\n  mtls:\n    mode: STRICT\n"
        );
        self.write(&format!("strict-{app}.yaml"), &yaml)
    }
}

/// A service of a test.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its virtual addresses; none makes it headless.
    pub addresses: &'a [IpAddr],
    /// Its ports, and the ports of the pods behind them.
    pub ports: &'a [(u16, u16)],
    /// Selects pods by their label `app`.
    pub app: &'a str,
}

impl Service<'_> {
    /// The Kubernetes object.
    #[must_use]
    pub fn yaml(&self) -> String {
        let Self { name, namespace, app, .. } = self;
        let mut yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
             spec:\n  selector:\n    app: {app}\n"
        );
        match self.addresses {
            [] => yaml.push_str("  clusterIP: None\n"),
            [first, ..] => {
                yaml.push_str(&format!("  clusterIP: \"{first}\"\n  clusterIPs:\n"));
                for address in self.addresses {
                    yaml.push_str(&format!("  - \"{address}\"\n"));
                }
            }
        }
        yaml.push_str("  ports:\n");
        for (port, target) in self.ports {
            yaml.push_str(&format!(
                "  - name: p{port}\n    port: {port}\n    targetPort: {target}\n    protocol: TCP\n"
            ));
        }
        yaml
    }
}
