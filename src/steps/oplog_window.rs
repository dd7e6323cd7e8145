//! How much is left of the time by which the source's oplogs reach back behind the checkpoint: when nothing is, a stream
//! can no longer begin there, and the copy is for nothing. Commit refuses then; this tells it while there is time to
//! enlarge the oplog.

use crate::context::Context;
use crate::model::job::{Checkpoint, CheckpointMap, Optime};
use crate::mongo::checkpoint;
use crate::source::Source;
use crate::state::keys;

/// Below this many percent of what there was at discover it is worth a warning.
const LITTLE: f64 = 25.0;

/// Looks at each oplog. That one cannot be read is nothing that a copy stops at; commit looks again.
pub async fn look(context: &Context, source: &Source) {
    let Ok(Some(captured)) = context.documents.read::<CheckpointMap>(keys::CHECKPOINT).await else { return };
    for deployment in &source.streams {
        let name = &deployment.identity.set_name;
        let Some(captured) = captured.value.checkpoints.get(name) else { continue };
        match checkpoint::oplog_begin(deployment).await {
            Ok(begin) => {
                let left = percent_left(captured, begin);
                context.tally.saw_oplog(left);
                if left < LITTLE {
                    tracing::warn!(
                        "the oplog of {name} begins at {begin}, and the checkpoint is {}: {left:.0} % of the time is left that it reached back behind it at discover; enlarge it (replSetResizeOplog) before a stream can no longer begin there",
                        captured.after
                    );
                }
            }
            Err(error) => tracing::debug!("the oplog of {name} was not looked at: {error}"),
        }
    }
}

/// Of the time between the oplog's begin and the checkpoint at discover, what is left now that it begins here.
fn percent_left(captured: &Checkpoint, begin: Optime) -> f64 {
    let seconds = |begin: Optime| f64::from(captured.after.seconds.saturating_sub(begin.seconds));
    let (then, now) = (seconds(captured.oplog_begin), seconds(begin));
    match begin < captured.after {
        false => 0.0,
        // An oplog that began in the second of the checkpoint, and has lost nothing since.
        true if then == 0.0 => 100.0,
        true => (now / then * 100.0).min(100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_shrinks_to_nothing() {
        let at = |seconds, increment| Optime { seconds, increment };
        let captured = |begin| Checkpoint::new(at(2_000, 5), None, begin);
        let left = |captured: &Checkpoint, begin| percent_left(captured, begin);
        let hour = captured(at(1_000, 1));
        assert_eq!(left(&hour, at(1_000, 1)), 100.0);
        assert_eq!(left(&hour, at(1_900, 1)), 10.0);
        assert_eq!(left(&hour, at(2_000, 5)), 0.0);
        assert_eq!(left(&hour, at(3_000, 1)), 0.0);
        assert_eq!(left(&captured(at(2_000, 1)), at(2_000, 1)), 100.0);
    }
}
