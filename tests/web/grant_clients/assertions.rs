//! Client assertions, at a provider that checks them.

use std::error::Error as _;
use std::fs;

use common::client_key::ClientKey;
use common::oidc::OidcProvider;
use common::support::*;
use tower_token_cache::grant::{
    AssertionFile, AssertionFileError, AssertionFileErrorKind, Client, ClientAssertion,
    PrivateKeyJwt, SigningKey,
};
use tower_token_cache::{BoxError, MemoryStore};

use super::{NOWHERE, acquire, code, provider_error, register, token_url};

fn client(provider: &OidcProvider, assertion: impl ClientAssertion) -> Client {
    let client = Client::new(token_url(provider), "service").unwrap();
    client.assertion(assertion)
}

#[tokio::test]
async fn the_provider_takes_each_algorithm_from_each_format_of_keys() {
    let provider = OidcProvider::start(NOWHERE, 3600);
    let cache = cache(MemoryStore::new());
    let (ec, rsa) = (ClientKey::ec("e"), ClientKey::rsa("r"));
    let key = |pem: &str, kid: &str| SigningKey::from_pem(pem).unwrap().kid(kid);
    for (algorithm, client_key, key) in [
        ("ES256", &ec, key(&ec.pkcs8, "e")),
        ("ES256", &ec, key(&ec.own, "e")),
        ("ES256", &ec, SigningKey::from_pem(&ec.own).unwrap()),
        ("RS256", &rsa, key(&rsa.pkcs8, "r")),
        ("RS256", &rsa, key(&rsa.own, "r")),
        ("PS256", &rsa, key(&rsa.own, "r").ps256().unwrap()),
    ] {
        register(&provider, algorithm, &[client_key]).await;
        let name = format!("{key:?}");
        let client = client(&provider, PrivateKeyJwt::new(key));
        // Several: the signature of a curve has numbers of different length.
        for number in 0..8 {
            let acquired = acquire(&cache, &client, &format!("{name}{number}")).await;
            let token = acquired
                .unwrap_or_else(|error| panic!("{name}: {error:?}"))
                .token;
            assert!(
                provider
                    .is_active(("app", "the app's secret"), token.access_token())
                    .await
            );
        }
    }
    // Another key of the same name, and another algorithm.
    register(&provider, "ES256", &[&ClientKey::ec("e")]).await;
    for key in [key(&ec.pkcs8, "e"), key(&rsa.pkcs8, "r")] {
        let name = format!("{key:?}, refused");
        let client = client(&provider, PrivateKeyJwt::new(key));
        let refused = acquire(&cache, &client, &name).await.unwrap_err();
        assert_eq!(code(&refused), "invalid_client", "{name}");
    }
}

#[tokio::test]
async fn an_assertion_is_for_the_endpoint_or_for_whom_it_is_told() {
    let provider = OidcProvider::start(NOWHERE, 3600);
    let cache = cache(MemoryStore::new());
    let key = ClientKey::ec("e");
    register(&provider, "ES256", &[&key]).await;
    let jwt = || PrivateKeyJwt::new(SigningKey::from_pem(&key.pkcs8).unwrap());
    for audience in [token_url(&provider), provider.issuer().to_owned()] {
        let client = client(&provider, jwt().audience(&*audience));
        acquire(&cache, &client, &audience).await.unwrap();
    }
    let client = client(&provider, jwt().audience("https://other.example"));
    let refused = acquire(&cache, &client, "other").await.unwrap_err();
    assert_eq!(code(&refused), "invalid_client");
}

#[tokio::test]
async fn an_assertion_counts_once_and_each_request_has_one_of_its_own() {
    let provider = OidcProvider::start(NOWHERE, 3600);
    let cache = cache(MemoryStore::new());
    let key = ClientKey::ec("e");
    register(&provider, "ES256", &[&key]).await;
    let jwt = PrivateKeyJwt::new(SigningKey::from_pem(&key.pkcs8).unwrap());
    let stolen = jwt
        .assertion("service", &token_url(&provider))
        .await
        .unwrap();
    let again = client(&provider, move || {
        let stolen = stolen.clone();
        async move { Ok::<_, BoxError>(stolen) }
    });
    acquire(&cache, &again, "first").await.unwrap();
    let replayed = acquire(&cache, &again, "second").await.unwrap_err();
    assert_eq!(code(&replayed), "invalid_client");
    let own = client(&provider, jwt);
    for name in ["third", "fourth"] {
        acquire(&cache, &own, name).await.unwrap();
    }
}

#[tokio::test]
async fn an_assertion_in_a_file_counts_as_soon_as_it_is_replaced() {
    let provider = OidcProvider::start(NOWHERE, 3600);
    let cache = cache(MemoryStore::new());
    let key = ClientKey::ec("e");
    register(&provider, "ES256", &[&key]).await;
    let jwt = PrivateKeyJwt::new(SigningKey::from_pem(&key.pkcs8).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let client = client(&provider, AssertionFile::new(&path));

    let missing = acquire(&cache, &client, "missing").await.unwrap_err();
    assert_eq!(code(&missing), "no_client_assertion");
    let mut chain =
        std::iter::successors(provider_error(&missing).source(), |&error| error.source());
    let error = chain.find_map(|error| error.downcast_ref::<AssertionFileError>());
    assert_eq!(error.unwrap().kind(), AssertionFileErrorKind::Unreadable);
    for round in 1..=3 {
        let assertion = jwt
            .assertion("service", &token_url(&provider))
            .await
            .unwrap();
        let new = folder.path().join("new");
        fs::write(&new, assertion.expose()).unwrap();
        fs::rename(&new, &path).unwrap();
        acquire(&cache, &client, &format!("round {round}"))
            .await
            .unwrap();
        // That of a platform counts as long as it lives. This provider takes each once, which shows that it was read.
        let again = acquire(&cache, &client, &format!("round {round} again")).await;
        assert_eq!(code(&again.unwrap_err()), "invalid_client");
    }
}
