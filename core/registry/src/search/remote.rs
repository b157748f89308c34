//! Embedding by a service: OpenAI's interface, there or at Azure (REG-505).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::{Deserialize, Serialize};
use url::Url;

use super::embedder::{EmbedError, Embedder};

const CONNECT_TIME: Duration = Duration::from_secs(5);
const TIME: Duration = Duration::from_secs(20);
/// Sent again so often after a failure that may pass.
const RETRIES: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(300);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A text is cut to so many characters: services take some 8000 tokens.
const LONGEST_TEXT: usize = 8_000;
/// An answer for a batch of the widest vectors has some 4 MB.
const LARGEST_ANSWER: usize = 32 << 20;
const MOST_DIMENSIONS: usize = 8_192;

/// An embedding service with OpenAI's interface.
pub struct RemoteEmbedder {
    client: Client,
    url: Url,
    headers: HeaderMap,
    model: String,
    name: String,
}

#[derive(Serialize)]
struct Body<'a> {
    input: Vec<&'a str>,
    model: &'a str,
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    index: Option<usize>,
    embedding: Numbers,
}

/// Asked for as base64; some services send a list all the same.
#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    Packed(String),
    List(Vec<f32>),
}

impl RemoteEmbedder {
    /// A service of OpenAI's interface: `url` is its base, such as `https://api.openai.com/v1`.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub fn open_ai(url: &str, model: &str, key: Option<&str>) -> Result<Self, String> {
        let base = url.trim_end_matches('/').trim_end_matches("/embeddings");
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert(AUTHORIZATION, secret(&format!("Bearer {key}"))?);
        }
        Self::new(&format!("{base}/embeddings"), headers, model, "OpenAI-compatible service")
    }

    /// A deployment of Azure OpenAI: `base` is the resource's URL.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub fn azure(base: &str, version: &str, deployment: &str, key: &str) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, secret(&format!("Bearer {key}"))?);
        headers.insert(HeaderName::from_static("api-key"), secret(key)?);
        let base = base.trim_end_matches('/').trim_end_matches("/openai");
        let url = format!("{base}/openai/deployments/{deployment}/embeddings");
        let mut embedder = Self::new(&url, headers, deployment, "Azure OpenAI")?;
        embedder.url.query_pairs_mut().append_pair("api-version", version);
        Ok(embedder)
    }

    fn new(url: &str, headers: HeaderMap, model: &str, what: &str) -> Result<Self, String> {
        let url = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or("the URL of the embedding service cannot be read; it must begin with http:// or https://")?;
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_platform_verifier()
            .map_err(|error| format!("the system's certificates cannot be used: {error}"))?
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            // The key is for this address only.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIME)
            .timeout(TIME)
            .build()
            .map_err(|error| error.to_string())?;
        let name = format!("{what}, model {model}");
        Ok(Self { client, url, headers, model: model.to_owned(), name })
    }

    async fn ask(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        let input = texts.iter().map(|text| cut(text)).collect();
        let body = Body { input, model: &self.model, encoding_format: "base64" };
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).json(&body);
        let response = request.send().await.map_err(|error| Failure::of(&error))?;
        let status = response.status().as_u16();
        if status != 200 {
            let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let may_pass = status == 429 || status == 408 || status >= 500;
            return Err(Failure { error: EmbedError::Status(status), may_pass, wait: wait.map(Duration::from_secs) });
        }
        let bytes = read(response).await?;
        vectors(&bytes, texts.len()).map_err(|what| Failure::last(EmbedError::Malformed(what)))
    }
}

impl Embedder for RemoteEmbedder {
    fn embed<'a>(&'a self, texts: &'a [String]) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        Box::pin(async move {
            let mut wait = FIRST_WAIT;
            let mut left = RETRIES;
            loop {
                let failure = match self.ask(texts).await {
                    Ok(vectors) => return Ok(vectors),
                    Err(failure) => failure,
                };
                if left == 0 || !failure.may_pass {
                    return Err(failure.error);
                }
                left -= 1;
                let jitter = wait.mul_f32(0.5 + fastrand::f32());
                tokio::time::sleep(failure.wait.unwrap_or(jitter).min(LONGEST_WAIT)).await;
                wait *= 2;
            }
        })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Debug for RemoteEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteEmbedder").field("name", &self.name).finish_non_exhaustive()
    }
}

struct Failure {
    error: EmbedError,
    may_pass: bool,
    wait: Option<Duration>,
}

impl Failure {
    fn of(error: &reqwest::Error) -> Self {
        let error = if error.is_timeout() { EmbedError::Timeout } else { EmbedError::Unreachable };
        Self { error, may_pass: true, wait: None }
    }

    fn last(error: EmbedError) -> Self {
        Self { error, may_pass: false, wait: None }
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&error))? {
        if bytes.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Failure::last(EmbedError::Malformed("it is larger than 32 MB")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn vectors(bytes: &[u8], count: usize) -> Result<Vec<Vec<f32>>, &'static str> {
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| "it has no list of embeddings")?;
    if answer.data.len() != count {
        return Err("it has another number of vectors than there were texts");
    }
    let mut found = vec![Vec::new(); count];
    for (at, one) in answer.data.into_iter().enumerate() {
        let vector = match one.embedding {
            Numbers::List(list) => list,
            Numbers::Packed(text) => {
                let bytes = STANDARD.decode(text).map_err(|_| "a vector is no base64")?;
                bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
            }
        };
        if vector.is_empty() || vector.len() > MOST_DIMENSIONS || !vector.iter().all(|number| number.is_finite()) {
            return Err("a vector is empty, too long or holds what is no number");
        }
        *found.get_mut(one.index.unwrap_or(at)).ok_or("a vector is for no text")? = vector;
    }
    if found.iter().any(Vec::is_empty) {
        return Err("a text has no vector");
    }
    Ok(found)
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(LONGEST_TEXT).map_or(text, |(end, _)| &text[..end])
}

fn secret(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| "the key of the embedding service holds characters that no header may hold")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_either_form_are_read_in_the_order_of_their_numbers() {
        let list = br#"{"data": [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]}"#;
        assert_eq!(vectors(list, 2).unwrap(), [[1.0, 0.0], [0.0, 1.0]]);
        let packed = STANDARD.encode([1.0_f32.to_le_bytes(), 0.5_f32.to_le_bytes()].concat());
        let packed = format!(r#"{{"data": [{{"embedding": "{packed}"}}], "model": "x"}}"#);
        assert_eq!(vectors(packed.as_bytes(), 1).unwrap(), [[1.0, 0.5]]);
    }

    #[test]
    fn answers_that_are_none_are_refused() {
        for (answer, count) in [
            ("", 1),
            ("{}", 1),
            (r#"{"data": []}"#, 1),
            (r#"{"data": [{"embedding": []}]}"#, 1),
            (r#"{"data": [{"embedding": "!"}]}"#, 1),
            (r#"{"data": [{"index": 7, "embedding": [1]}]}"#, 1),
            (r#"{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}"#, 2),
            (r#"{"data": [{"embedding": [1e300]}]}"#, 1),
        ] {
            assert!(vectors(answer.as_bytes(), count).is_err(), "{answer}");
        }
    }

    #[test]
    fn keys_and_addresses_are_checked_and_not_shown() {
        assert!(RemoteEmbedder::open_ai("ftp://x", "m", None).unwrap_err().contains("http://"));
        let bad = RemoteEmbedder::open_ai("http://x", "m", Some("s3cr\u{7}et")).unwrap_err();
        assert!(!bad.contains("s3cr"), "{bad}");
        let good = RemoteEmbedder::azure("http://x/", "2024-02-01", "text-embedding-ada-002", "s3cret").unwrap();
        assert!(!format!("{good:?} {}", good.name()).contains("s3cret"));
        let path = "http://x/openai/deployments/text-embedding-ada-002/embeddings?api-version=2024-02-01";
        assert_eq!(good.url.as_str(), path);
    }
}
