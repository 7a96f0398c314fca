//! The authority over real sockets, asked by our own client and by a scripted one.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::identity::join::JoinToken;
use shared::identity::{Authority as _, CaClient, CertStore, SpiffeId, Token};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::ca::Constraints;
use crate::ca::test_support::Scratch;

/// Pods of service account `web` run on node `a`, as long as the flag says so. Where there is
/// news, it can be waited for.
struct Pods(AtomicBool, Option<watch::Sender<u64>>);

impl NodePods for Pods {
    fn may_act_for(&self, node: &str, id: &SpiffeId) -> bool {
        self.0.load(Ordering::Relaxed) && node == "a" && id.service_account() == "web"
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.1.as_ref().map(watch::Sender::subscribe)
    }
}

struct Running {
    address: SocketAddr,
    state: State,
    pods: Arc<Pods>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
    scratch: Scratch,
}

fn config(scratch: &Scratch) -> Config {
    Config {
        mesh: scratch.path().into(),
        state: scratch.path().join("state"),
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        trust_domain: TrustDomain::default(),
        leaf_ttl: Duration::from_secs(3600),
        constraints: Constraints::On,
    }
}

impl Running {
    fn start(name: &str) -> Self {
        Self::start_with(name, |_| ())
    }

    fn start_with(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_for(name, Pods(AtomicBool::new(true), None), change)
    }

    fn start_for(name: &str, pods: Pods, change: impl FnOnce(&mut Config)) -> Self {
        let scratch = Scratch::new(name);
        let pods = Arc::new(pods);
        let mut config = config(&scratch);
        change(&mut config);
        let bound = Bound::bind(&config, Arc::clone(&pods) as _).unwrap();
        let address = bound.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(bound.run(async move {
            let _ = stopped.await;
        }));
        let state = State::open(&config.state).unwrap();
        Self { address, state, pods, stop, task, scratch }
    }

    fn tokens(&self) -> Tokens {
        Tokens::open(&self.state).unwrap()
    }

    fn token(&self, node: &str) -> JoinToken {
        let root = Root::open(&self.state, &TrustDomain::default(), Constraints::On).unwrap();
        self.tokens().make(node, &root).unwrap().parse().unwrap()
    }

    fn client(&self, token: JoinToken) -> CaClient {
        let address = self.address.to_string();
        CaClient::new(&address, Token::Fixed(token), TrustDomain::default()).unwrap()
    }
}

fn web() -> SpiffeId {
    "spiffe://cluster.local/ns/team/sa/web".parse().unwrap()
}

fn code(error: &shared::identity::Error) -> String {
    use shared::identity::Error as E;
    match error {
        E::Refused { status, .. } => status.message().split(':').next().unwrap().to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pod_that_the_node_has_heard_of_first_gets_its_certificate_when_the_mesh_tells() {
    let pods = Pods(AtomicBool::new(false), Some(watch::Sender::new(0)));
    let ca = Running::start_for("serve-late", pods, |_| ());
    let client = ca.client(ca.token("a"));
    let news = ca.pods.1.as_ref().expect("made with news");
    let id = web();
    let tell = async {
        // The request has come, been judged and waits.
        while news.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        ca.pods.0.store(true, Ordering::Relaxed);
        news.send_replace(1);
    };
    let (issued, ()) = tokio::join!(client.issue(&id), tell);
    assert_eq!(*issued.unwrap().identity(), id);
}

#[tokio::test]
async fn a_node_gets_the_identities_of_its_pods_and_no_other() {
    let ca = Running::start("serve-own");
    let client = ca.client(ca.token("a"));
    let certificate = client.issue(&web()).await.unwrap();
    assert_eq!(*certificate.identity(), web());
    let again = client.issue(&web()).await.unwrap();
    assert_ne!(certificate.serial(), again.serial());
    assert_ne!(certificate.chain(), again.chain());

    let other = "spiffe://cluster.local/ns/team/sa/other".parse().unwrap();
    assert_eq!(code(&client.issue(&other).await.unwrap_err()), "CA_POD_NOT_ON_NODE");
    let foreign = "spiffe://other.test/ns/team/sa/web".parse().unwrap();
    assert_eq!(code(&client.issue(&foreign).await.unwrap_err()), "CA_TRUST_DOMAIN");
    let neighbour = ca.client(ca.token("b"));
    assert_eq!(code(&neighbour.issue(&web()).await.unwrap_err()), "CA_POD_NOT_ON_NODE");
    ca.pods.0.store(false, Ordering::Relaxed);
    assert_eq!(code(&client.issue(&web()).await.unwrap_err()), "CA_POD_NOT_ON_NODE");
}

#[tokio::test]
async fn certificates_of_the_authority_are_accepted_by_its_mesh() {
    let ca = Running::start("serve-mesh");
    let client = ca.client(ca.token("a"));
    let (one, other) = (client.issue(&web()).await.unwrap(), client.issue(&web()).await.unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (socket, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(one.server_config()).accept(socket).await.unwrap()
    };
    let connecting = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(other.client_config(&[web()]));
        connector.connect(tls::server_name(), socket).await.unwrap()
    };
    let (server, client) = tokio::join!(accepting, connecting);
    assert_eq!(*tls::peer(server.get_ref().1).unwrap().id(), web());
    assert_eq!(*tls::peer(client.get_ref().1).unwrap().id(), web());
}

#[tokio::test]
async fn revoked_and_foreign_tokens_are_refused_without_a_restart() {
    let ca = Running::start("serve-tokens");
    let client = ca.client(ca.token("a"));
    client.issue(&web()).await.unwrap();
    assert_eq!(ca.tokens().revoke("a").unwrap(), 1);
    assert_eq!(code(&client.issue(&web()).await.unwrap_err()), "CA_TOKEN");
    // Made by somebody who knows the root, but not the state.
    let root = ca.token("b").root();
    let forged = ca.client(JoinToken::generate("a", root).unwrap());
    assert_eq!(code(&forged.issue(&web()).await.unwrap_err()), "CA_TOKEN");
}

#[tokio::test]
async fn token_is_not_shown_to_a_server_with_another_root() {
    let (ours, theirs) = (Running::start("serve-pin-a"), Running::start("serve-pin-b"));
    // Our token, their address: the handshake fails, so nothing was sent.
    let client = theirs.client(ours.token("a"));
    let error = client.issue(&web()).await.unwrap_err();
    assert!(matches!(error, shared::identity::Error::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_workload_cannot_pass_for_the_authority() {
    let ca = Running::start("serve-impostor");
    let token = ca.token("a");
    let stolen = ca.client(token.clone()).issue(&web()).await.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let impostor = async {
        let (socket, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(stolen.server_config()).accept(socket).await.map(|_| ())
    };
    let client = CaClient::new(&address, Token::Fixed(token), TrustDomain::default()).unwrap();
    let id = web();
    let (handshake, answer) = tokio::join!(impostor, client.issue(&id));
    assert!(handshake.is_err());
    assert!(matches!(answer.unwrap_err(), shared::identity::Error::Unreachable(_)));
}

#[tokio::test]
async fn after_an_attempt_that_hung_the_next_one_has_a_connection_of_its_own() {
    let ca = Running::start("serve-hang");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let relay = async {
        let (mute, _) = listener.accept().await.unwrap();
        let (mut heard, _) = listener.accept().await.unwrap();
        let mut authority = TcpStream::connect(ca.address).await.unwrap();
        tokio::io::copy_bidirectional(&mut heard, &mut authority).await.ok();
        drop(mute);
    };
    let client =
        CaClient::new(&address, Token::Fixed(ca.token("a")), TrustDomain::default()).unwrap();
    let id = web();
    let asking = async {
        let hung = time::timeout(Duration::from_millis(100), client.issue(&id)).await;
        assert!(hung.is_err());
        client.issue(&id).await.unwrap();
    };
    tokio::select! { () = relay => panic!("the relay ended"), () = asking => {} }
}

#[tokio::test]
async fn root_and_tokens_survive_a_restart() {
    let ca = Running::start("serve-restart");
    let token = ca.token("a");
    let client = ca.client(token.clone());
    let before = client.issue(&web()).await.unwrap();
    ca.stop.send(()).unwrap();
    ca.task.await.unwrap().unwrap();
    client.issue(&web()).await.unwrap_err();

    let mut config = config(&ca.scratch);
    config.listen = ca.address;
    let bound = Bound::bind(&config, ca.pods).unwrap();
    let running = tokio::spawn(bound.run(std::future::pending()));
    let after = client.issue(&web()).await.unwrap();
    assert_eq!(before.roots().certificates(), after.roots().certificates());
    running.abort();
}

/// The promise of design D5, with real clocks: what X.509's whole seconds take from a life of five
/// is in here.
#[tokio::test]
async fn certificates_of_five_seconds_rotate_and_outlive_a_pause_of_the_authority() {
    let mut ca = Running::start_with("serve-rotation", |config| {
        config.leaf_ttl = Duration::from_secs(5);
    });
    let client = Arc::new(ca.client(ca.token("a")));
    let (store, task) = CertStore::new(client, shared::identity::Config::default());
    tokio::spawn(task);
    let first = store.certificate(&web()).await.unwrap();
    let valid_for = async |time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let held = store.latest(&web()).expect("a certificate is in hand");
            assert!(!held.remaining(std::time::SystemTime::now()).is_zero());
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    valid_for(Duration::from_secs(3)).await;
    assert_ne!(store.latest(&web()).unwrap().serial(), first.serial());
    ca.stop.send(()).unwrap();
    ca.task.await.unwrap().unwrap();
    valid_for(Duration::from_millis(1500)).await;
    let mut config = config(&ca.scratch);
    config.listen = ca.address;
    config.leaf_ttl = Duration::from_secs(5);
    let bound = Bound::bind(&config, Arc::clone(&ca.pods) as _).unwrap();
    ca.task = tokio::spawn(bound.run(std::future::pending()));
    valid_for(Duration::from_secs(6)).await;
    ca.task.abort();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let ca = Running::start("serve-taken");
    let mut config = config(&ca.scratch);
    config.listen = ca.address;
    let error = Bound::bind(&config, ca.pods).err().unwrap();
    assert_eq!(error.to_string(), format!("listen on {}", ca.address));
}

#[tokio::test]
async fn a_silent_peer_does_not_hold_up_others() {
    let ca = Running::start("serve-silent");
    let _silent = TcpStream::connect(ca.address).await.unwrap();
    ca.client(ca.token("a")).issue(&web()).await.unwrap();
}
