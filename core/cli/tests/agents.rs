//! A registry from the command line: `arcp agents` and `arcp login`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use arcp::registry::server::config::Config;
use arcp::registry::server::{Running as Registry, start};
use serde_json::{Value, json};
use support::folder::Folder;
use support::{Ran, Running, arcp, finish, one_line};
use tokio::process::Command;

/// A registry, and a user with a configuration folder of his own.
struct Scene {
    registry: Registry,
    url: String,
    home: Folder,
}

impl Scene {
    async fn new(name: &str) -> Scene {
        let registry = start(Config::dev()).await.unwrap();
        Scene { url: registry.url(), registry, home: Folder::new(name) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = arcp(args.iter().copied());
        for name in ["ARCP_AGENT_KEY", "ARCP_ADMIN_USERNAME", "ARCP_ADMIN_PASSWORD", "ARCP_OWNER"] {
            command.env_remove(name);
        }
        command.env("ARCP_REGISTRY_URL", &self.url).env("XDG_CONFIG_HOME", self.home.path());
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        finish(&mut self.command(args)).await
    }

    async fn with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        finish(&mut command).await
    }

    async fn register(&self, id: &str, key: &str) -> Ran {
        let agent = agent(id).to_string();
        self.with(&["agents", "register", &agent, "--output", "json"], &[("ARCP_AGENT_KEY", key)]).await
    }

    fn stored(&self) -> PathBuf {
        PathBuf::from(self.home.at("arcp/registries.json"))
    }
}

fn agent(id: &str) -> Value {
    json!({"agent_id": id, "name": "My agent", "agent_type": "testing", "endpoint": "http://127.0.0.1:9",
           "capabilities": ["data-processing", "text-analysis"],
           "context_brief": "A testing agent for data processing and file conversion"})
}

/// Rules: REG-033, REG-034, REG-035, REG-036, REG-039, REG-040
#[tokio::test]
async fn an_agent_is_registered_found_kept_alive_and_taken_out() {
    let scene = Scene::new("agents-life").await;
    let registered = scene.register("my-agent", "test-agent-001").await;
    assert_eq!((registered.status, &registered.json()["agent"]["status"]), (0, &json!("alive")), "{registered:?}");
    assert_eq!(std::fs::metadata(scene.stored()).unwrap().permissions().mode() & 0o777, 0o600);

    let listed = scene.run(&["agents", "list"]).await;
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[0].starts_with("ID        NAME      TYPE     STATUS  LAST SEEN"), "{listed:?}");
    assert!(lines[1].starts_with("my-agent  My agent  testing  alive   "), "{listed:?}");
    assert!(!listed.stdout.contains('\u{1b}'), "colour is for terminals: {listed:?}");
    let found = scene.run(&["agents", "search", "process text files", "--output", "json"]).await;
    assert_eq!(found.json()["found"]["id"], "my-agent");
    let shown = scene.run(&["agents", "get", "my-agent"]).await;
    assert!(
        shown.stdout.contains("capabilities") && shown.stdout.contains("data-processing, text-analysis"),
        "{shown:?}"
    );
    let beat = scene.run(&["agents", "heartbeat", "my-agent", "--output", "json"]).await;
    assert_eq!(beat.json()["heartbeat"]["status"], "success");

    let gone = scene.run(&["agents", "unregister", "my-agent"]).await;
    assert_eq!((gone.status, &*gone.stdout), (0, "my-agent is unregistered\n"), "{gone:?}");
    assert!(!std::fs::read_to_string(scene.stored()).unwrap().contains("my-agent"));
    let nobody = scene.run(&["agents", "get", "my-agent"]).await;
    assert!(one_line(&nobody, 5).contains("Failed to get agent my-agent"), "{nobody:?}");
    scene.registry.stop().await;
}

/// Rules: REG-030, REG-134
#[tokio::test]
async fn a_login_is_stored_for_its_user_alone_or_printed() {
    let scene = Scene::new("agents-login").await;
    let dead = ["agents", "list", "--status", "dead"];
    assert!(one_line(&scene.run(&dead).await, 4).contains("arcp login"));
    let login = ["login", "--username", "ARCP"];
    let wrong = scene.with(&login, &[("ARCP_ADMIN_PASSWORD", "s3cret-wrong")]).await;
    let told = one_line(&wrong, 4);
    assert!(told.contains("Admin login failed") && !told.contains("s3cret"), "{told}");
    assert!(!scene.stored().exists());

    let printed = scene.with(&[&login[..], &["--print"]].concat(), &[("ARCP_ADMIN_PASSWORD", "ARCP")]).await;
    let token = printed.stdout.trim();
    assert_eq!((printed.status, token.split('.').count()), (0, 3), "{printed:?}");
    assert!(!std::fs::read_to_string(scene.stored()).unwrap().contains(token));
    assert_eq!(scene.with(&dead, &[("ARCP_TOKEN", token)]).await.status, 0);
    assert_eq!(scene.run(&dead).await.status, 4);

    let password = scene.home.at("password");
    std::fs::write(&password, "ARCP\n").unwrap();
    let stored = scene.run(&[&login[..], &["--password-file", &password, "--output", "json"]].concat()).await;
    assert_eq!(stored.json()["login"]["stored"], true, "{stored:?}");
    assert!(stored.json()["login"].get("token").is_none());
    assert_eq!(std::fs::metadata(scene.stored()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(scene.run(&dead).await.status, 0);
    let forgotten = scene.run(&["login", "--forget"]).await;
    assert_eq!(forgotten.status, 0, "{forgotten:?}");
    assert_eq!(scene.run(&dead).await.status, 4);
    scene.registry.stop().await;
}

/// Rules: REG-055, REG-059, REG-313
#[tokio::test]
async fn watching_shows_who_comes_and_goes() {
    let scene = Scene::new("agents-watch").await;
    let mut watching = Running::spawn(scene.command(&["agents", "watch"]));
    assert!(watching.err_line().await.starts_with("0 agents are alive"));
    let mut command =
        scene.command(&["agents", "register", &agent("my-agent").to_string(), "--keep-alive", "--every", "1"]);
    command.env("ARCP_AGENT_KEY", "test-agent-001");
    let mut living = Running::spawn(command);
    assert_eq!(living.err_line().await, "kept alive until Ctrl-C");
    let line = watching.out_line().await;
    assert!(line.ends_with("alive    my-agent  testing  My agent"), "{line}");
    living.signal("INT").await;
    assert_eq!(living.end().await.status, 0);
    let line = watching.out_line().await;
    assert!(line.ends_with("gone     my-agent  testing  My agent"), "{line}");
    watching.signal("INT").await;
    assert_eq!(watching.end().await.status, 0);
    scene.registry.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_one_line_with_a_remedy() {
    let scene = Scene::new("agents-faults").await;
    let told = async |args: &[&str], status| one_line(&scene.run(args).await, status);
    assert!(told(&["agents", "register", "{}"], 2).await.contains("agent_id is missing"));
    assert!(told(&["agents", "register", "@nowhere.json"], 2).await.contains("nowhere.json"));
    assert!(told(&["agents", "register", r#"{"agent_key":"k"}"#], 2).await.contains("--agent-key-file"));
    assert!(told(&["agents", "search", "x"], 2).await.contains("query"));
    assert!(told(&["agents", "list", "--url", "localhost:1"], 2).await.contains("http://127.0.0.1:8001"));
    assert!(told(&["agents", "heartbeat", "my-agent", "--every", "0"], 4).await.contains("heartbeat"));
    assert!(told(&["login"], 2).await.contains("--username"));
    assert!(told(&["login", "--username", "ARCP"], 2).await.contains("--password-file"));
    let nobody = ["agents", "list", "--url", "http://127.0.0.1:9", "--output", "json"];
    let nobody = scene.run(&nobody).await;
    assert_eq!((nobody.status, &nobody.json()["error"]["code"]), (3, &json!("no_connection")), "{nobody:?}");
    let refused = scene.run(&["agents", "list", "--status", "dead", "--output", "json"]).await;
    assert_eq!(refused.json()["error"]["code"], "authentication-failed", "{refused:?}");
    assert_eq!(refused.json()["error"]["details"]["status"], 401);

    std::fs::create_dir_all(scene.stored().parent().unwrap()).unwrap();
    std::fs::write(scene.stored(), "{").unwrap();
    assert!(told(&["agents", "list"], 1).await.contains("damaged"));
    scene.registry.stop().await;
}

/// A proxy that answers everything alike, and what it is asked first.
async fn proxy(answer: &'static str) -> (String, tokio::sync::oneshot::Receiver<String>) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://me:pass@{}", listener.local_addr().unwrap());
    let (say, heard) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut say = Some(say);
        while let Ok((stream, _)) = listener.accept().await {
            let (mut stream, mut head) = (BufReader::new(stream), String::new());
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
            if let Some(say) = say.take() {
                say.send(head).unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, heard)
}

#[tokio::test]
async fn proxies_of_the_environment_are_used_beyond_this_machine() {
    let scene = Scene::new("agents-proxy").await;
    let list = ["agents", "list", "--output", "json", "--url"];
    let (url, heard) = proxy("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await;
    let ran = scene.with(&[&list[..], &["http://registry.invalid:8001"]].concat(), &[("http_proxy", &url)]).await;
    assert_eq!((ran.status, &*ran.stdout), (0, ""), "{ran:?}");
    let head = heard.await.unwrap().to_lowercase();
    assert!(head.starts_with("get http://registry.invalid:8001/agents?include_metrics=false http/1.1\r\n"), "{head}");
    assert!(head.contains("host: registry.invalid:8001\r\n"), "{head}");
    assert!(head.contains("proxy-authorization: basic bwu6cgfzcw==\r\n"), "{head}");

    let (url, heard) = proxy("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await;
    let ran = scene.with(&[&list[..], &["https://registry.invalid"]].concat(), &[("https_proxy", &url)]).await;
    assert_eq!(ran.status, 3);
    assert!(
        ran.stderr.contains("proxy: it asks for a user name and password") && !ran.stderr.contains("me:pass"),
        "{ran:?}"
    );
    let head = heard.await.unwrap();
    assert!(head.starts_with("CONNECT registry.invalid:443 HTTP/1.1\r\nHost: registry.invalid:443\r\n"), "{head}");

    let own = scene.with(&["agents", "list"], &[("http_proxy", &url)]).await;
    assert_eq!(own.status, 0, "no proxy stands between this machine and itself: {own:?}");
    scene.registry.stop().await;
}
