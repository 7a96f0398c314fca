//! Applications that are not only pods of the mesh: some speak TLS themselves, some have only a name.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use harness::asking::Ask;
use harness::backend::{Backend, Guest};
use harness::eventually::eventually;
use harness::pod::PodSpec;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::mesh::{SOON, serve};
use super::super::suite::Case;
use super::lab::{HTTP, Lab};
use super::scene::Scene;

pub(crate) const CASES: &[Case] = &[
    ("waypoint::outside::tls_is_spoken_with_whom_the_policy_names", &[], secured),
    ("waypoint::outside::names_are_resolved", &[], named),
];

const URI: &str = "spiffe://elsewhere/secure";

/// An application that speaks TLS, and the authority of its certificate.
struct Secure {
    root: String,
    _backend: Backend,
}

impl Secure {
    /// Answers every request of a connection with its first line and the server name it asked for.
    fn start(lab: &Lab, port: u16) -> anyhow::Result<Self> {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate()?;
        let root_certificate = root.self_signed(&root_key)?;
        let issuer = Issuer::new(root, root_key);
        let mut leaf = CertificateParams::new(vec!["secure.example".to_owned()])?;
        leaf.subject_alt_names.push(SanType::URI(URI.try_into()?));
        let key = KeyPair::generate()?;
        let chain = vec![leaf.signed_by(&key, &issuer)?.into()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(shared::tls::provider::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let config = Arc::new(config);
        let backend = lab.backend(port, move |guest| answer(guest, &config))?;
        Ok(Self { root: root_certificate.pem(), _backend: backend })
    }
}

fn answer(guest: &Guest, config: &Arc<ServerConfig>) -> io::Result<()> {
    let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, guest.wire.stream()?));
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        let name = stream.get_ref().conn.server_name().unwrap_or("-").to_owned();
        let body = format!("{line} for {name}");
        let length = body.len();
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.get_mut().write_all(text.as_bytes())?;
    }
}

/// TLS towards the port of the lab that the test answers.
fn policy(validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: tls, \
         namespace: shop}}\nspec:\n  targetRefs: [{{group: '', kind: Service, name: lab, \
         sectionName: http-raw}}]\n  validation: {{{validation}}}\n---\n"
    )
}

fn authorities(name: &str, pem: &str) -> String {
    let pem = pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata:\n  \
         ca.crt: |\n{pem}---\n"
    )
}

const CA: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";

fn secured() -> anyhow::Result<()> {
    let lab = Lab::new("outside-tls")?;
    let secure = Secure::start(&lab, HTTP)?;
    let plain = Lab::get(HTTP, "/").from(&lab.scene.client)?;
    ensure!(plain.status >= 500, "without a policy nobody speaks TLS: {plain:?}");
    let ca = authorities("ca", &secure.root);
    let set = |validation: &str, status: u16, body: &str, cause: &str| {
        let yaml = format!("{}{ca}", policy(validation));
        lab.scene.cluster.mesh().write("tls.yaml", &yaml)?;
        eventually(SOON, validation, || {
            let answer = Lab::get(HTTP, "/secret").from(&lab.scene.client)?;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(answer.status == status && said.contains(body), "{answer:?}: {said}");
            let told = answer.header("proxy-status").unwrap_or_default();
            ensure!(told.ends_with(cause), "{answer:?}");
            anyhow::Ok(())
        })
    };
    let good = "GET /secret HTTP/1.1 for secure.example";
    set(&format!("hostname: secure.example, {CA}"), 200, good, "")?;
    let sans = "subjectAltNames: [{type: URI, uri: 'spiffe://elsewhere/secure'}]";
    let other = "GET /secret HTTP/1.1 for other.example";
    set(&format!("hostname: other.example, {sans}, {CA}"), 200, other, "")?;
    let failed = "details=UPSTREAM_CONNECT_FAILED";
    set(&format!("hostname: other.example, {CA}"), 503, "tls with the application", failed)?;
    let wrong = "subjectAltNames: [{type: Hostname, hostname: wrong.example}]";
    set(&format!("hostname: secure.example, {wrong}, {CA}"), 503, "not valid for", failed)?;
    set("hostname: secure.example, wellKnownCACertificates: System", 503, "", "")?;
    let refused = "details=BACKEND_INVALID";
    let gone = CA.replace("name: ca", "name: gone");
    set(&format!("hostname: secure.example, {gone}"), 500, "no ConfigMap gone", refused)?;
    set("hostname: secure.example", 500, "BackendTLSPolicy is invalid", refused)?;
    let kind = CA.replace("ConfigMap", "Secret");
    set(&format!("hostname: secure.example, {kind}"), 500, "no kind that holds", refused)
}

/// `resolution: DNS`.
fn named() -> anyhow::Result<()> {
    let scene = Scene::new("outside-names")?;
    let node = scene.client.node();
    let outside = scene.cluster.pod(node, PodSpec::new("outside").outside().unannounced())?;
    let _app = serve(&outside, "app", 8080)?;
    let _echo = serve(&outside, "banner", 9090)?;
    scene.cluster.host("api.outside.example", outside.ip())?;
    let entry = |name: &str, host: &str, address: &str, more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, \
             namespace: shop}}\nspec:\n  hosts: [{host}]\n  addresses: [{address}]\n  location: \
             MESH_EXTERNAL\n  resolution: DNS\n  ports:\n  - {{number: 80, name: http, protocol: \
             HTTP, targetPort: 8080}}\n  - {{number: 90, name: tcp, protocol: TCP, targetPort: \
             9090}}\n{more}---\n"
        )
    };
    let yaml = [
        entry("host", "api.outside.example", "10.97.0.1", ""),
        entry(
            "endpoint",
            "any.example",
            "10.97.0.2",
            "  endpoints: [{address: api.outside.example}]\n",
        ),
        entry("nobody", "nobody.invalid", "10.97.0.3", ""),
    ]
    .concat();
    scene.cluster.mesh().write("outside.yaml", &yaml)?;
    for address in ["10.97.0.1:80", "10.97.0.2:80"] {
        eventually(SOON, "the name is resolved", || {
            let answer = Ask::get(address.parse()?, "/").from(&scene.client)?;
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(answer.header("x-pod") == Some("outside"), "{answer:?}");
            let seen = answer.seen()?;
            ensure!(seen.headers.contains_key("x-request-id"), "past the waypoint: {seen:?}");
            anyhow::Ok(())
        })
        .with_context(|| address.to_owned())?;
    }
    let mut wire = harness::wire::Wire::open(&scene.client, "10.97.0.1:90".parse()?)?;
    let said = wire.take(11)?;
    ensure!(said == b"220 outside", "{:?}", String::from_utf8_lossy(&said));
    let answer = Ask::get("10.97.0.3:80".parse()?, "/").from(&scene.client)?;
    ensure!(answer.status == 503, "{answer:?}");
    let (_, dump) = scene.waypoint_pod.get("127.0.0.1:15000", "/config_dump")?;
    ensure!(dump.contains("api.outside.example"), "{dump}");
    Ok(())
}
