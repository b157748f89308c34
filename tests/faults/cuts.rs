//! A link that breaks all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arcp::Subscribe;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval};

use crate::support::{Place, connected, is_long, order, port_of};
use crate::ticks::{Ticks, follow};

const EVERY: Duration = Duration::from_millis(200);

/// Carries connections, and cuts them all again and again once it is told to begin.
struct Cutter {
    url: String,
    cut: broadcast::Sender<()>,
    /// How many connections it cut.
    cuts: Arc<AtomicU64>,
}

impl Cutter {
    fn begin(&self) {
        let knife = self.cut.clone();
        tokio::spawn(async move {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // Nobody may be connected.
                drop(knife.send(()));
            }
        });
    }
}

/// A cutter before this port.
async fn cutter(port: u16) -> Cutter {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/arcp", listener.local_addr().unwrap());
    let cuts = Arc::new(AtomicU64::new(0));
    let (cut, _) = broadcast::channel(1);
    let (counted, knife) = (Arc::clone(&cuts), cut.clone());
    tokio::spawn(async move {
        while let Ok((mut ours, _)) = listener.accept().await {
            let (mut cut, cuts) = (knife.subscribe(), Arc::clone(&counted));
            tokio::spawn(async move {
                // At the end there is no server any more.
                let Ok(mut theirs) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                tokio::select! {
                    // Ended by an end itself; nothing to cut.
                    _ = copy_bidirectional(&mut ours, &mut theirs) => {}
                    _ = cut.recv() => {
                        // Every other one by a reset, which takes with it what was under way.
                        if cuts.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                            ours.set_zero_linger().unwrap();
                            theirs.set_zero_linger().unwrap();
                        }
                    }
                }
            });
        }
    });
    Cutter { url, cut, cuts }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_link_that_breaks_all_the_time_every_event_comes_once_in_order() {
    let (ticks, seconds) = if is_long() { (100_000, 60) } else { (10_000, 5) };
    let (begun, place) = (Instant::now(), Place::new());
    let mut server = place.serve(&[], "ticker:runtime", 0, 1, &["--db", &place.db()]);
    let direct = server.listening().await;
    let cutter = cutter(port_of(&direct)).await;
    // A client heals once it was welcomed, so it is welcomed before the knife falls.
    let client = connected(&cutter.url).await;
    cutter.begin();
    let watcher = connected(&direct).await;
    let session = client.welcome().unwrap().session_id.clone();
    let order = order("spread", &json!({"ticks": ticks, "seconds": seconds}), Some("cut"));
    let handle = client.submit(&order, None).await.unwrap();
    let request = Subscribe { job_id: handle.job_id().into(), from_event_seq: None, history: true };
    let watched = watcher.subscribe(&request).await.unwrap();
    let seen = AtomicU64::new(0);
    let (told, watched) = tokio::join!(follow(&handle, &seen), follow(watched.handle(), &seen));
    assert_eq!(told.ended, Ok(json!({"life": 1, "ticks": ticks})));
    assert_eq!(told.ticks, Ticks(vec![(1, ticks)]));
    assert_eq!((watched.ticks, watched.ended), (told.ticks, told.ended));
    // One more number is the end's.
    assert!(told.numbers.iter().copied().eq(1..=told.numbers.len() as u64));
    assert_eq!(told.numbers.len() as u64 + 1, client.latest_event_seq());
    assert_eq!(client.welcome().unwrap().session_id, session);
    let cuts = cutter.cuts.load(Ordering::Relaxed);
    assert!(cuts > 2 * seconds, "it was cut {cuts} times only");
    server.stop().await;
    eprintln!("cuts: {cuts} in {:.0} s under {ticks} events", begun.elapsed().as_secs_f64());
}
