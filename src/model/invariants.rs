//! What must hold between a state document and the one that replaces it. Checked before each write: a defect stops a
//! job rather than damages it.

use super::counts::Counts;
use super::lane::LaneProgress;
use super::lease::Lease;

/// A rule that a write would break: a defect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// Epochs never go back, and a lease changes hands only with a new epoch.
pub fn epochs_never_retreat(old: &Lease, new: &Lease) -> Result<(), Broken> {
    if new.epoch < old.epoch {
        return Err(Broken("epochs_never_retreat: the new epoch is smaller"));
    }
    if new.epoch == old.epoch && new.holder.is_some() && new.holder != old.holder {
        return Err(Broken("epochs_never_retreat: another holder with the same epoch"));
    }
    Ok(())
}

/// What a lane has counted never becomes less but by a partition that begins a new attempt, what it has finished stays
/// so, and an open cursor that is replaced by nothing has finished. What it gave away stays given.
pub fn cursors_never_retreat(old: &LaneProgress, new: &LaneProgress) -> Result<(), Broken> {
    if old.lane != new.lane || old.plan != new.plan || old.partitions != new.partitions {
        return Err(Broken("cursors_never_retreat: not the same lane of the same plan"));
    }
    if new.begun_below < old.begun_below || new.replay_below < old.replay_below || new.segments < old.segments {
        return Err(Broken("cursors_never_retreat: a window or segment count became smaller"));
    }
    tails_stay_given(old, new)?;
    if new.replay_below > new.begun_below || new.begun_below > new.own().end {
        return Err(Broken("cursors_never_retreat: a window beyond what was begun or is its own"));
    }
    if new.finished_partitions() < old.finished_partitions() || new.finished_partitions() > new.own().len() as u32 {
        return Err(Broken("cursors_never_retreat: a finished partition was lost or doubled"));
    }
    let mut went_back = false;
    for (number, before) in &old.open {
        match new.open.get(number) {
            Some(now) if now.attempt > before.attempt => went_back = true,
            Some(now) if now.attempt < before.attempt || !covers(now.counts, before.counts) => {
                return Err(Broken("cursors_never_retreat: a cursor went back within an attempt"));
            }
            Some(_) => {}
            None if new.finished.iter().any(|record| record.partition.number == *number) => {}
            None => return Err(Broken("cursors_never_retreat: an open cursor was lost")),
        }
    }
    // What goes back and ends before the next save is not open any more.
    went_back |= new.finished.iter().any(|record| {
        let before = old.open.get(&record.partition.number);
        before.is_some_and(|before| record.attempt > before.attempt)
    });
    if !went_back && !covers(new.counts(), old.counts()) {
        return Err(Broken("cursors_never_retreat: counts became smaller"));
    }
    if new.open.keys().any(|number| number.0 >= new.begun_below) {
        return Err(Broken("cursors_never_retreat: a cursor in a partition that was not begun"));
    }
    Ok(())
}

/// What was given away is not taken back, and nothing is given that was begun or is given already.
fn tails_stay_given(old: &LaneProgress, new: &LaneProgress) -> Result<(), Broken> {
    let Some(more) = new.given.strip_prefix(old.given.as_slice()) else {
        return Err(Broken("tails_stay_given: a tail was taken back"));
    };
    let ends = std::iter::once(old.own().end).chain(more.iter().map(|from| from.0));
    let is_free = |(from, end): (u32, u32)| from >= old.begun_below && from > new.lane.from.0 && from < end;
    if !more.iter().map(|from| from.0).zip(ends).all(is_free) {
        return Err(Broken("tails_stay_given: a tail with a partition that was begun, or is in another one"));
    }
    Ok(())
}

fn covers(new: Counts, old: Counts) -> bool {
    new.read >= old.read
        && new.written >= old.written
        && new.replaced >= old.replaced
        && new.rejected >= old.rejected
        && new.deleted >= old.deleted
        && new.replayed >= old.replayed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::{Key, Position};
    use crate::model::lane::OpenPartition;
    use crate::model::plan::{LaneName, PartitionNumber};
    use bson::RawBsonRef;

    fn lane(read: u64) -> LaneProgress {
        let mut lane = LaneProgress::new(LaneName::planned("rs0", 0), "hash".into(), 3);
        lane.begun_below = 2;
        let position = Position::After(Key::from_value(RawBsonRef::Int64(read as i64)));
        let counts = Counts { read, written: read, ..Counts::default() };
        lane.open.insert(PartitionNumber(1), OpenPartition { position, counts, ..OpenPartition::default() });
        lane
    }

    #[test]
    fn a_cursor_goes_on_and_never_back() {
        assert_eq!(cursors_never_retreat(&lane(3), &lane(5)), Ok(()));
        assert!(cursors_never_retreat(&lane(5), &lane(3)).is_err());
    }

    #[test]
    fn a_cursor_goes_back_only_in_a_new_attempt() {
        let mut back = lane(3);
        back.open.values_mut().for_each(|open| open.attempt = 1);
        assert_eq!(cursors_never_retreat(&lane(5), &back), Ok(()));
        assert!(cursors_never_retreat(&back, &lane(5)).is_err());
    }

    #[test]
    fn an_open_cursor_ends_only_by_finishing() {
        let mut lost = lane(5);
        lost.open.clear();
        lost.sealed_counts = lane(5).counts();
        assert!(cursors_never_retreat(&lane(5), &lost).is_err());
    }

    #[test]
    fn a_tail_stays_given_and_holds_nothing_that_was_begun() {
        let with = |given: &[u32]| {
            let mut lane = lane(5);
            lane.partitions = 9;
            lane.given = given.iter().map(|from| PartitionNumber(*from)).collect();
            lane
        };
        for (old, new) in [(&[][..], &[2][..]), (&[], &[7, 4]), (&[7], &[7]), (&[7], &[7, 2])] {
            assert_eq!(cursors_never_retreat(&with(old), &with(new)), Ok(()), "{old:?} {new:?}");
        }
        for (old, new) in
            [(&[7][..], &[][..]), (&[7], &[6]), (&[], &[1]), (&[], &[9]), (&[7], &[7, 8]), (&[7], &[7, 7])]
        {
            assert!(cursors_never_retreat(&with(old), &with(new)).is_err(), "{old:?} {new:?}");
        }
        let mut begun = with(&[5]);
        begun.begun_below = 6;
        assert!(cursors_never_retreat(&with(&[5]), &begun).is_err());
    }

    #[test]
    fn nothing_is_open_that_was_not_begun() {
        let mut early = lane(5);
        early.begun_below = 1;
        assert!(cursors_never_retreat(&early.clone(), &early).is_err());
    }
}
