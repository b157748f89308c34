//! A stand-in for a gateway with virtual keys, over a real socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const ADMIN: &str = "sk-admin-hidden";

/// What the gateway does with its next requests.
#[derive(Clone)]
pub(crate) enum Mood {
    Well,
    /// This status and body, this many times.
    Answers(u16, String, usize),
    /// Never answers.
    Hangs,
    /// Makes the key, and closes the connection instead of answering.
    LosesAnswers,
}

pub(crate) struct State {
    pub(crate) mood: Mood,
    /// Alias to value and what was asked for.
    pub(crate) keys: BTreeMap<String, (String, Value)>,
    /// Paths asked, in order.
    pub(crate) asked: Vec<String>,
    made: usize,
}

#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Gateway {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State { mood: Mood::Well, keys: BTreeMap::new(), asked: Vec::new(), made: 0 };
        let gateway = Gateway { url, state: Arc::new(Mutex::new(state)) };
        let serving = gateway.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let gateway = serving.clone();
                tokio::spawn(async move { gateway.serve(stream).await });
            }
        });
        gateway
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state.lock().mood = mood;
    }

    pub(crate) fn keys(&self) -> usize {
        self.state.lock().keys.len()
    }

    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                match stream.read_line(&mut line).await {
                    Ok(read) if read > 0 => {}
                    _ => return,
                }
                if line == "\r\n" {
                    break;
                }
                head.push(line.trim_end().to_owned());
            }
            let header = |name: &str| {
                head.iter().skip(1).find_map(|line| {
                    let (found, value) = line.split_once(':')?;
                    found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let path = head[0].split(' ').nth(1).unwrap_or_default().to_owned();
            let allowed = header("authorization") == Some(format!("Bearer {ADMIN}"));
            let Some((status, answer)) = self.answer(&path, allowed, &body).await else { return };
            let text = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nlocation: /elsewhere\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            );
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, path: &str, allowed: bool, body: &[u8]) -> Option<(u16, String)> {
        let mood = {
            let mut state = self.state.lock();
            state.asked.push(path.to_owned());
            let mood = state.mood.clone();
            if let Mood::Answers(_, _, times) = &mut state.mood {
                *times -= 1;
                if *times == 0 {
                    state.mood = Mood::Well;
                }
            }
            mood
        };
        match mood {
            Mood::Answers(status, body, _) => return Some((status, body)),
            Mood::Hangs => tokio::time::sleep(Duration::from_secs(60)).await,
            _ => {}
        }
        if !allowed {
            return Some((401, json!({"error": {"message": "no"}}).to_string()));
        }
        let asked: Value = serde_json::from_slice(body).unwrap();
        let mut state = self.state.lock();
        match path {
            "/key/generate" => {
                state.made += 1;
                let value = format!("sk-made-{}", state.made);
                let alias = asked["key_alias"].as_str().unwrap().to_owned();
                if state.keys.insert(alias.clone(), (value.clone(), asked)).is_some() {
                    return Some((400, json!({"error": {"message": "alias exists"}}).to_string()));
                }
                if matches!(mood, Mood::LosesAnswers) {
                    return None;
                }
                Some((200, json!({"key": value, "key_alias": alias, "token": "hash", "expires": null}).to_string()))
            }
            "/key/delete" => {
                let texts = |name: &str| serde_json::from_value::<Vec<String>>(asked[name].clone()).unwrap_or_default();
                let (aliases, hashes) = (texts("key_aliases"), texts("keys"));
                let hash = |value: &str| {
                    Sha256::digest(value.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
                };
                state.keys.retain(|alias, (value, _)| !aliases.contains(alias) && !hashes.contains(&hash(value)));
                let deleted = [aliases, hashes].concat();
                Some((200, json!({ "deleted_keys": deleted }).to_string()))
            }
            _ => Some((404, "{}".into())),
        }
    }
}
