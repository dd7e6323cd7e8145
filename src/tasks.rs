//! Tasks beside the main line of a run: renewing leases, saving, closing cursors.
//!
//! They are counted, so that whoever ends a run without ending the process can wait until nothing of it goes on. A
//! Lambda function must: its sandbox is frozen once it has answered, and what was still on its way would go on when it is
//! thawed for another invocation, long after another worker has taken over.

use std::sync::LazyLock;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Those of this process. Closed from the beginning: it is waited for again and again.
static TASKS: LazyLock<TaskTracker> = LazyLock::new(|| {
    let tasks = TaskTracker::new();
    tasks.close();
    tasks
});

/// Begins a task, whose log lines are those of the span that it was begun in.
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(counted(task))
}

/// A task that somebody else begins, such as a `JoinSet`.
pub fn counted<T>(task: impl Future<Output = T>) -> impl Future<Output = T> {
    TASKS.track_future(task.in_current_span())
}

/// Ends when none is left, also of those that were aborted: what they held is dropped by then.
pub async fn all_ended() {
    TASKS.wait().await;
}

/// How many there are.
pub fn left() -> usize {
    TASKS.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn an_aborted_task_is_waited_for() {
        let task = spawn(std::future::pending::<()>());
        let waited = tokio::time::timeout(Duration::from_millis(20), all_ended()).await;
        assert!(waited.is_err() && left() > 0);
        task.abort();
        assert!(tokio::time::timeout(Duration::from_secs(60), all_ended()).await.is_ok());
    }
}
