//! The client and a server whose certificate an authority of the company has signed.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use super::stub::{Answer, Stub};
use super::*;
use crate::pipeline::TextFile;

/// Connections over TLS; those whose handshake fails are passed over.
struct TlsListener {
    inner: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.inner.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// A server for `localhost`, and the certificate of its authority as PEM.
async fn server() -> (Stub, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).unwrap();

    let certificate: CertificateDer<'static> = leaf.der().clone();
    let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private)
        .unwrap();
    let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", inner.local_addr().unwrap().port());
    let listener = TlsListener { inner, acceptor: TlsAcceptor::from(Arc::new(config)) };
    (Stub::on(listener, url, |_| Some(Answer::json(200, &json!({ "tagline": "You Know, for Search" })))), authority)
}

fn config(url: &str) -> ConnectionConfig {
    let mut config = ConnectionConfig::new(url);
    config.retry.max_retries = 0;
    config
}

#[tokio::test]
async fn a_certificate_of_an_own_authority_is_trusted_where_ca_file_names_it() {
    let (stub, authority) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority).unwrap();
    let mut config = config(&stub.url);
    config.ca_file = Some(TextFile::at(file));
    let client = Client::new(&config, "anomalyd/test/elasticsearch").unwrap();
    let reply = client.send(Request::get("/")).await.unwrap();
    assert_eq!(reply.json::<Value>().unwrap()["tagline"], "You Know, for Search");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_the_message_names_ca_file() {
    let (stub, _) = server().await;
    let client = Client::new(&config(&stub.url), "anomalyd/test/elasticsearch").unwrap();
    let error = client.send(Request::get("/")).await.unwrap_err().to_string();
    assert!(error.contains("set `ca_file`"), "{error}");
    assert!(stub.seen().is_empty(), "nothing was sent to a server that is not known");
}
