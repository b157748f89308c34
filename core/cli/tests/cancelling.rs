//! Jobs and programs that are stopped.

#![cfg(unix)]

mod support;

use arcp::{CancelPolicy, Client, ClientConfig, ClientInfo, ConnectOptions, Error, WebSocketTransport};
use support::{BOUND, Host, Running, TOKEN, fails, one_line, run, session};
use tokio::time::timeout;

#[tokio::test]
async fn cancel_ends_a_running_job_and_leaves_an_ended_one() {
    let mut host = Host::start(CancelPolicy::Principal).await;
    let job_id = host.detached("waits").await;
    assert_eq!(host.hear().await, "started");
    let url = host.url.clone();
    let cancel = session("cancel", &url, &["--job-id", &job_id, "--reason", "changed my mind"]);
    let ran = run(&cancel).await;
    assert_eq!((ran.status, ran.stdout), (0, format!("{job_id} is being cancelled\n")));
    assert_eq!(host.hear().await, "cancelled");

    let tailed = run(&session("tail", &url, &["--job-id", &job_id])).await;
    assert_eq!(one_line(&tailed, 7), "arcp: CANCELLED: cancelled: changed my mind");
    assert!(tailed.stdout.contains("cleaned up"), "{tailed:?}");

    let again = run(&cancel).await;
    assert_eq!((again.status, again.stdout), (0, format!("{job_id} had already ended: cancelled\n")));
}

#[tokio::test]
async fn the_strict_policy_refuses_another_session() {
    let mut host = Host::start(CancelPolicy::Session).await;
    let url = host.url.clone();
    let mut submit = Running::start(&session("submit", &url, &["--agent", "waits"]));
    let line = submit.err_line().await;
    assert_eq!(host.hear().await, "started");
    let job_id = line.strip_prefix("job ").unwrap();
    let refused = fails(&session("cancel", &url, &["--job-id", job_id]), 5).await;
    assert!(refused.starts_with("arcp: PERMISSION_DENIED: "), "{refused}");
    host.release.notify_one();
    assert_eq!(submit.end().await.status, 0);
}

#[tokio::test]
async fn ctrl_c_cancels_the_submitted_job_and_waits_for_its_end() {
    let mut host = Host::start(CancelPolicy::Session).await;
    let url = host.url.clone();
    for (form, signal) in [("text", "INT"), ("json", "TERM")] {
        let submit = Running::start(&session("submit", &url, &["--agent", "waits", "--quiet", "--output", form]));
        assert_eq!(host.hear().await, "started");
        submit.signal(signal).await;
        assert_eq!(host.hear().await, "cancelled");
        let ended = submit.end().await;
        assert_eq!(one_line(&ended, 130), "arcp: CANCELLED: cancelled: interrupted by the user");
        if form == "json" {
            let lines = ended.json_lines();
            assert_eq!(lines.last().unwrap()["error"]["code"], "CANCELLED");
            assert!(lines.iter().any(|line| line["event"]["body"]["message"] == "cleaned up"), "{lines:?}");
        }
    }
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_at_once() {
    let mut host = Host::start(CancelPolicy::Session).await;
    let url = host.url.clone();
    let mut submit = Running::start(&session("submit", &url, &["--agent", "lingers"]));
    assert!(submit.err_line().await.starts_with("job "));
    assert_eq!(host.hear().await, "started");
    submit.signal("INT").await;
    assert!(submit.err_line().await.contains("Ctrl-C again"));
    assert_eq!(host.hear().await, "cancelled");
    submit.signal("INT").await;
    let ended = submit.end().await;
    assert_eq!((ended.status, &*ended.stdout, &*ended.stderr), (130, "", ""));
}

#[tokio::test]
async fn ctrl_c_on_tail_leaves_the_job_alone() {
    let mut host = Host::start(CancelPolicy::Principal).await;
    let job_id = host.detached("waits").await;
    assert_eq!(host.hear().await, "started");
    let url = host.url.clone();
    let tail = session("tail", &url, &["--job-id", &job_id]);
    let mut first = Running::start(&tail);
    first.out_line().await;
    first.signal("INT").await;
    assert_eq!(first.end().await.status, 130);
    host.release.notify_one();
    assert_eq!(run(&tail).await.status, 0);
}

#[tokio::test]
async fn a_stopping_server_says_goodbye() {
    let (server, url) = Running::serve(&[]).await;
    let transport = WebSocketTransport::connect(&url, ConnectOptions::default()).await.unwrap();
    let mut config = ClientConfig::new(ClientInfo { name: "client".into(), version: "1".into() });
    // Otherwise it would wait for the server to come back.
    config.reconnect = None;
    let client = Client::new(config);
    client.connect(transport, TOKEN).await.unwrap();
    server.signal("TERM").await;
    let Error::Closed(why) = timeout(BOUND, client.closed()).await.unwrap() else { panic!("no goodbye") };
    assert!(why.contains("the runtime is stopping"), "{why}");
    let ended = server.end().await;
    assert_eq!((ended.status, &*ended.stderr), (0, ""));
}
