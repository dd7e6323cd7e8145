//! What every state store must do, checked through the public interface alone. It runs on all of them.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use bytes::Bytes;
use mongoferry::state::probe::probe;
use mongoferry::state::store::{Etag, StateStore, StoreError};
use std::sync::Arc;
use tokio::task::JoinSet;

/// How many race for one object.
const RACERS: usize = 50;

/// Fails unless the store, which is empty, does what [`StateStore`] promises.
pub async fn conforms(store: Arc<dyn StateStore>) {
    nothing_is_there_at_first(&*store).await;
    create_replace_get(&*store).await;
    stale_etags_stay_stale(&*store).await;
    bodies_of_any_size(&*store).await;
    keys_of_any_shape(&*store).await;
    lists_are_sorted_and_keep_to_their_prefix(&*store).await;
    one_create_wins(&store).await;
    increments_are_not_lost(&store).await;
    probes_pass(&store).await;
}

/// Fails unless more keys are listed than any page holds (S3's hold 1000). Apart, since it takes thousands of writes.
pub async fn lists_thousands(store: Arc<dyn StateStore>) {
    let keys: Vec<String> = (0..2100).map(|number| format!("many/{number:05}")).collect();
    for chunk in keys.chunks(RACERS) {
        let mut creates = JoinSet::new();
        for key in chunk {
            let (store, key) = (Arc::clone(&store), key.clone());
            creates.spawn(async move { store.create(&key, Bytes::new()).await });
        }
        for result in creates.join_all().await {
            result.unwrap();
        }
    }
    assert_eq!(store.list("many/").await.unwrap(), keys);
}

async fn nothing_is_there_at_first(store: &dyn StateStore) {
    assert_eq!(store.get("nothing").await, Ok(None));
    assert_eq!(store.get("nothing/below").await, Ok(None));
    assert_eq!(store.list("").await, Ok(vec![]));
    assert_eq!(store.list("nothing/").await, Ok(vec![]));
    let etag = Etag("\"00000000000000000000000000000000\"".to_owned());
    assert_eq!(store.replace("nothing", "x".into(), &etag).await, Err(StoreError::Conflict));
    assert_eq!(store.get("nothing").await, Ok(None));
}

async fn create_replace_get(store: &dyn StateStore) {
    let first = store.create("basic/k", "1".into()).await.unwrap();
    let read = store.get("basic/k").await.unwrap().unwrap();
    assert_eq!((read.body, read.etag), (Bytes::from("1"), first.clone()), "a write's etag is the one that is read");
    assert_eq!(store.create("basic/k", "other".into()).await, Err(StoreError::Conflict));
    assert_eq!(store.create("basic/k", "1".into()).await, Err(StoreError::Conflict), "also with the same content");
    assert_eq!(store.get("basic/k").await.unwrap().unwrap().body, "1");
    let second = store.replace("basic/k", "2".into(), &first).await.unwrap();
    assert_ne!(first, second);
    let read = store.get("basic/k").await.unwrap().unwrap();
    assert_eq!((read.body, read.etag), (Bytes::from("2"), second));
}

async fn stale_etags_stay_stale(store: &dyn StateStore) {
    let mut stale = Vec::new();
    let mut etag = store.create("stale", "0".into()).await.unwrap();
    for number in 1..5 {
        let next = store.replace("stale", number.to_string().into(), &etag).await.unwrap();
        stale.push(std::mem::replace(&mut etag, next));
    }
    for old in stale {
        assert_eq!(store.replace("stale", "x".into(), &old).await, Err(StoreError::Conflict));
    }
    let other = store.create("stale-other", "other".into()).await.unwrap();
    assert_eq!(store.replace("stale", "x".into(), &other).await, Err(StoreError::Conflict), "another object's etag");
    assert_eq!(store.get("stale").await.unwrap().unwrap().body, "4");
}

async fn bodies_of_any_size(store: &dyn StateStore) {
    let large: Bytes = (0..5_u32 << 20).map(|number| (number % 251) as u8).collect();
    let larger: Bytes = large.iter().rev().copied().chain([0, b'\n', 0xff]).collect();
    for (key, body, next) in [("size/empty", Bytes::new(), "x".into()), ("size/large", large, larger)] {
        let etag = store.create(key, body.clone()).await.unwrap();
        assert!(store.get(key).await.unwrap().unwrap().body == body, "{key}");
        assert_eq!(store.create(key, Bytes::new()).await, Err(StoreError::Conflict));
        let etag = store.replace(key, next.clone(), &etag).await.unwrap();
        assert!(store.get(key).await.unwrap().unwrap().body == next, "{key}");
        store.replace(key, Bytes::new(), &etag).await.unwrap();
        assert_eq!(store.get(key).await.unwrap().unwrap().body, "", "{key}");
    }
}

async fn keys_of_any_shape(store: &dyn StateStore) {
    let longest = format!("shape/{}", "k".repeat(200));
    for key in ["shape/A", "shape/a", "shape/a.b_c-d..e", "shape/1/2/3/4/5/6/7/8", &longest] {
        store.create(key, Bytes::from(key.to_owned())).await.unwrap();
    }
    for key in store.list("shape/").await.unwrap() {
        assert_eq!(store.get(&key).await.unwrap().unwrap().body, key);
    }
    for key in ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a b", "a\0"] {
        let refused = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Refused(_)));
        assert!(refused(store.get(key).await.map(drop)), "{key:?}");
        assert!(refused(store.create(key, "x".into()).await.map(drop)), "{key:?}");
        assert!(refused(store.replace(key, "x".into(), &Etag(String::new())).await.map(drop)), "{key:?}");
    }
    for prefix in ["a", "/", "../", "a/../"] {
        assert!(matches!(store.list(prefix).await, Err(StoreError::Refused(_))), "{prefix:?}");
    }
}

async fn lists_are_sorted_and_keep_to_their_prefix(store: &dyn StateStore) {
    let mut keys =
        ["a/b", "a/a/z", "a/a-z", "a/B", "a/10", "a/9", "ab/c", "a-b/c", "b"].map(|key| format!("list/{key}"));
    for key in &keys {
        store.create(key, "x".into()).await.unwrap();
    }
    keys.sort();
    assert_eq!(store.list("list/").await.unwrap(), keys);
    let below: Vec<String> = keys.iter().filter(|key| key.starts_with("list/a/")).cloned().collect();
    assert_eq!(below.len(), 6);
    assert_eq!(store.list("list/a/").await.unwrap(), below, "`list/ab/` is not below `list/a/`");
    assert_eq!(store.list("list/a/b/").await.unwrap(), Vec::<String>::new(), "an object is no folder");
    let all = store.list("").await.unwrap();
    assert!(all.is_sorted() && keys.iter().all(|key| all.contains(key)));
}

async fn one_create_wins(store: &Arc<dyn StateStore>) {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let store = Arc::clone(store);
        racers.spawn(async move {
            let body = Bytes::from(format!("racer {racer}"));
            loop {
                match store.create("race/create", body.clone()).await {
                    Ok(_) => return true,
                    // Nobody replaces it: what is there says who won, also when the winner's answer was lost.
                    Err(StoreError::Conflict) => {
                        return store.get("race/create").await.unwrap().unwrap().body == body;
                    }
                    Err(StoreError::Ambiguous(_)) => {}
                    Err(StoreError::Refused(text)) => panic!("{text}"),
                }
            }
        });
    }
    let winners = racers.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(winners, 1);
}

/// Every racer adds one line to an object; all lines are there at the end, once.
async fn increments_are_not_lost(store: &Arc<dyn StateStore>) {
    store.create("race/lines", "start\n".into()).await.unwrap();
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let store = Arc::clone(store);
        racers.spawn(async move {
            let line = format!("racer {racer}\n");
            loop {
                let read = store.get("race/lines").await.unwrap().unwrap();
                let text = std::str::from_utf8(&read.body).unwrap();
                if text.contains(&line) {
                    // An answer was lost.
                    return;
                }
                let added = format!("{text}{line}");
                match store.replace("race/lines", added.into(), &read.etag).await {
                    Ok(_) => return,
                    Err(StoreError::Conflict | StoreError::Ambiguous(_)) => {}
                    Err(StoreError::Refused(text)) => panic!("{text}"),
                }
            }
        });
    }
    racers.join_all().await;
    let read = store.get("race/lines").await.unwrap().unwrap();
    let mut lines: Vec<&str> = std::str::from_utf8(&read.body).unwrap().lines().collect();
    assert_eq!(lines.len(), RACERS + 1);
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), RACERS + 1, "a line was added twice");
}

async fn probes_pass(store: &Arc<dyn StateStore>) {
    probe(&**store).await.unwrap();
    let mut probes = JoinSet::new();
    for _ in 0..10 {
        let store = Arc::clone(store);
        probes.spawn(async move { probe(&*store).await });
    }
    for result in probes.join_all().await {
        result.unwrap();
    }
}
