//! A node with pods, a ztunnel and a waypoint, over a mesh that grows.

use std::time::Duration;

use anyhow::Context as _;
use harness::cluster::Cluster;
use harness::eventually::{eventually, pause};
use harness::pod::{Pod, PodSpec};
use harness::process::Running;
use harness::proxies::{Authority, Ztunnel};
use harness::waypoint::Waypoint;

use super::objects::{self, PER_FILE};
use super::record::Figure;
use crate::memory::Memory;

/// Pods of the node itself.
pub(super) const PODS: u32 = 10;
/// A process that uses less than this of a second has nothing to do.
const IDLE: Duration = Duration::from_millis(60);
/// The largest mesh is read and compiled long before.
const PATIENCE: u32 = 600;
const SOON: Duration = Duration::from_secs(60);

/// Everything that is up.
pub(super) struct World {
    ztunnel: Running,
    waypoint: Running,
    near: std::sync::Arc<harness::cluster::Node>,
    waypoint_pod: Pod,
    _pods: Vec<Pod>,
    _authority: Authority,
    cluster: Cluster,
}

impl World {
    /// With `workloads` in the mesh, the pods of the node among them.
    pub(super) fn new(workloads: u32) -> anyhow::Result<Self> {
        let cluster = Cluster::new("footprint")?;
        let near = cluster.node("near")?;
        let pods =
            (0..PODS).map(|number| cluster.pod(&near, PodSpec::new(&format!("app-{number}"))));
        let pods = pods.collect::<anyhow::Result<Vec<Pod>>>()?;
        let waypoint_pod =
            cluster.pod(&near, Waypoint::pod("waypoint-0", "default", "waypoint"))?;
        let mesh = cluster.mesh();
        mesh.write("gateway.yaml", &Waypoint::gateway("default", "waypoint", "10.97.0.1"))?;
        mesh.write("shop.yaml", SHOP)?;
        // The node's own pods and the waypoint's are workloads too.
        mesh.write("others.yaml", &objects::pods(PODS + 1, workloads))?;
        let authority = Authority::start(&cluster, &near, "24h")?;
        let mut ztunnel = Ztunnel::start(&cluster, &near, &authority)?;
        let waypoint = Waypoint::start(&cluster, &waypoint_pod, &authority)?;
        ztunnel.ready()?;
        pods.iter().try_for_each(|pod| ztunnel.serves(pod))?;
        waypoint.ready(&waypoint_pod)?;
        Ok(Self {
            ztunnel: ztunnel.into_process(),
            waypoint: waypoint.into_process(),
            near,
            waypoint_pod,
            _pods: pods,
            _authority: authority,
            cluster,
        })
    }

    /// Adds `count` routes.
    pub(super) fn add_routes(&self, count: u32) -> anyhow::Result<()> {
        self.forget_peaks()?;
        self.cluster.mesh().write("routes.yaml", &objects::routes(count))?;
        Ok(())
    }

    /// Goes from `few` workloads to `many`.
    pub(super) fn grow(&self, few: u32, many: u32) -> anyhow::Result<()> {
        self.forget_peaks()?;
        let mut from = few;
        while from < many {
            let to = many.min(from + PER_FILE);
            self.cluster.mesh().write(&format!("others-{from}.yaml"), &objects::pods(from, to))?;
            from = to;
        }
        Ok(())
    }

    fn forget_peaks(&self) -> anyhow::Result<()> {
        for running in [&self.ztunnel, &self.waypoint] {
            Memory::forget_peak(running.pid()).context("the kernel keeps the peak")?;
        }
        Ok(())
    }

    /// Waits until neither process has worked for `secs`.
    pub(super) fn settle(&self, secs: f64) -> anyhow::Result<()> {
        let spent = || anyhow::Ok([self.ztunnel.cpu_time()?, self.waypoint.cpu_time()?]);
        let (mut before, mut rest) = (spent()?, 0.0);
        for _ in 0..PATIENCE {
            pause(Duration::from_secs(1));
            let now = spent()?;
            let idle = now.iter().zip(&before).all(|(now, before)| *now - *before < IDLE);
            (before, rest) = (now, if idle { rest + 1.0 } else { 0.0 });
            if rest >= secs {
                return Ok(());
            }
        }
        anyhow::bail!("the processes did not come to rest in {PATIENCE} s")
    }

    /// What ztunnel holds.
    pub(super) fn ztunnel(&self, workloads: u32) -> anyhow::Result<Figure> {
        figure("ztunnel", &self.ztunnel, workloads, 0)
    }

    /// What the waypoint holds.
    pub(super) fn waypoint(&self, workloads: u32, routes: u32) -> anyhow::Result<Figure> {
        figure("waypoint", &self.waypoint, workloads, routes)
    }

    /// That what was measured was there. Asked at the end, since the answer is large.
    pub(super) fn check(&self, workloads: u32, routes: u32) -> anyhow::Result<()> {
        let count = |dump: &str, key: &str| -> anyhow::Result<u32> {
            let dump: serde_json::Value = serde_json::from_str(dump)?;
            let list = dump[key].as_array().with_context(|| format!("no {key} in the dump"))?;
            Ok(u32::try_from(list.len())?)
        };
        eventually(SOON, "ztunnel knows all workloads", || {
            let (_, dump) = self.near.get("127.0.0.1:15000", "/config_dump")?;
            let known = count(&dump, "workloads")?;
            anyhow::ensure!(known == workloads, "{known} of {workloads}");
            Ok(())
        })?;
        eventually(SOON, "the waypoint knows all routes", || {
            let (_, dump) = self.waypoint_pod.get("127.0.0.1:15000", "/config_dump")?;
            let known = count(&dump, "routes")?;
            anyhow::ensure!(known == routes, "{known} of {routes}");
            Ok(())
        })
    }
}

/// The service that the routes belong to.
const SHOP: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: shop\n  namespace: default\n  \
     labels:\n    istio.io/use-waypoint: waypoint\nspec:\n  clusterIP: 10.97.0.2\n  selector:\n    \
     app: shop\n  ports:\n  - name: http\n    port: 80\n    targetPort: 8080\n";

fn figure(program: &str, running: &Running, workloads: u32, routes: u32) -> anyhow::Result<Figure> {
    let memory = Memory::read(running.pid());
    anyhow::ensure!(memory.rss_kib > 0, "{program} has ended: {}", running.stderr());
    Ok(Figure {
        program: program.to_owned(),
        workloads,
        routes,
        memory,
        peak_kib: Memory::peak_kib(running.pid()),
    })
}
