//! The lane protocol as states and actions.
//!
//! What makes the state space small without leaving anything out:
//! - **Versions are relations.** No version of the document ever comes back, so all that matters of a version that
//!   somebody remembers is whether it is still the present one. A write that was applied makes every other remembered
//!   version stale, and every other write on its way bound to be refused.
//! - **Time is ages.** Nobody compares clocks, each worker only measures durations on its own; so clocks may be off by
//!   anything. An age stops growing where it stops making a difference, so time needs no bound.
//! - **A freeze is doing nothing.** Any worker may take no step for any number of ticks, between any two steps. Messages
//!   and answers go on meanwhile.
//! - **One fault stands for four.** A worker that gives up waiting leaves its write on its way: applied at once it is a
//!   lost answer, applied later a late write, never applied a lost request. A conflict reported for one's own success
//!   (a client that tries again by itself) leads to the same step as no answer at all: reading back.
//! - **A dead worker's place is taken by a new one** with another run id, which knows nothing.

use super::rules::{Bounds, Rules};
use bson::RawBsonRef;
use mongoferry::model::counts::Counts;
use mongoferry::model::cursor::{Acknowledged, Key, Position, Tracker};
use mongoferry::model::lease::{Epoch, Evidence, Holder, Lease, send_limit};
use stateright::{Model, Property};
use std::time::Duration;

/// Batches of the lane.
pub const BATCHES: u8 = 2;
/// Length of the lease in ticks; half of it is the smallest that tells "just now" from "a while ago".
const LEASE: u8 = 4;
const TICK: Duration = Duration::from_secs(1);
const ALL: u8 = (1 << BATCHES) - 1;

/// A worker's place; the process in it may be another one after a crash.
pub type Place = u8;

/// A process as the document names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    /// The one that now runs at this place.
    At(Place),
    /// One that is no more.
    Gone,
}

/// The lane's document, without its write id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Document {
    epoch: u8,
    holder: Option<Run>,
    cursor: u8,
    done: bool,
    /// A holder that was overtaken may still send: whoever holds the lease has to outlive it.
    outlive: bool,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stored {
    document: Document,
    /// Whose write it is, by the write id.
    by: Option<Run>,
    /// It is the very write that this worker asked for last, not an earlier one.
    by_latest: bool,
}

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Becoming the holder.
    Claim,
    /// Renewing the lease, moving the cursor.
    Save,
    /// Marking the lane as done.
    Done,
    /// Letting go of it before that.
    Release,
}

/// Where a write is that its worker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// On its way to the store.
    Sent,
    /// It took effect, the answer is on its way.
    Applied,
    /// Refused, or not answered: the worker must read the document back to know.
    Unknown,
}

/// A compare-and-swap that a worker asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Write {
    purpose: Purpose,
    document: Document,
    progress: Progress,
    /// Ticks since it was asked for, on the worker's clock.
    age: u8,
}

/// A write that nobody waits for any more. It can still take effect, as long as the document is the one it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Late {
    by: Place,
    gone: bool,
    latest: bool,
    purpose: u8,
    epoch: u8,
    holder: u8,
    cursor: u8,
    done: bool,
    outlive: bool,
}

/// What a worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits for the lane.
    Watching {
        /// For how long the document is known not to have changed.
        unchanged: u8,
    },
    /// It copies.
    Working(Work),
    /// It has stopped sending and lets go of the lease.
    Releasing(Work),
}

/// What the holder of the lane knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Work {
    epoch: u8,
    /// Where it began.
    base: u8,
    /// The next batch to send.
    next: u8,
    /// Which batches were acknowledged, as bits.
    acknowledged: u8,
    /// Ticks since the last save that is known to have succeeded.
    age: u8,
    /// For how many more ticks an overtaken holder may send.
    outlive: u8,
    /// It has looked at its permit and is about to send.
    permitted: bool,
}

/// A worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Worker {
    stage: Stage,
    /// The version that it remembers is the present one.
    current: bool,
    write: Option<Write>,
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// The cursor went back.
    CursorWentBack,
    /// An older epoch, or one's own without holding the lease, replaced the document.
    FencedWriterWrote,
    /// A permit was good after commit.
    SentAfterCommit,
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    stored: Stored,
    late: Vec<Late>,
    workers: [Worker; 2],
    /// The batches that a majority of the target has.
    target: u8,
    /// Batches on their way from workers that are no more, as far as the target does not have them yet.
    stray: u8,
    committed: bool,
    left: Left,
    broken: Option<Broken>,
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Left {
    takeovers: u8,
    crashes: u8,
    unanswered: u8,
    releases: u8,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Time passes for everybody, but for the clock of this worker, whose machine is suspended.
    Tick(Option<Place>),
    /// A watching worker reads the document.
    Read(Place),
    /// It asks for the lease, on this evidence.
    Claim(Place, Why),
    /// The holder saves its cursor, which renews the lease.
    Save(Place),
    /// It marks the lane as done.
    Finish(Place),
    /// It lets go of it.
    Release(Place),
    /// It looks at its permit.
    Permit(Place),
    /// It sends the next batch.
    Send(Place),
    /// A batch is on a majority of the target, and the holder knows.
    Acknowledge(Place, u8),
    /// A batch of a worker that is no more is on a majority of the target.
    Stray(u8),
    /// A write reaches the store.
    Apply(Place),
    /// One that nobody waits for does.
    ApplyLate(usize),
    /// The store's answer reaches the worker.
    Answer(Place),
    /// The worker gives up waiting for the store's answer.
    GiveUp(Place),
    /// It reads the document to find out what became of its write.
    ReadBack(Place),
    /// It dies.
    Crash(Place),
    /// The job is committed: the target may be live.
    Commit,
}

/// On what evidence a worker claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The lease is free.
    Free,
    /// The document did not change for the lease's time.
    Unchanged,
    /// The holder is a dead process.
    DeadProcess,
    /// A person said so.
    Takeover,
}

/// The protocol under some rules, within some bounds.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    /// What the workers keep to.
    pub rules: Rules,
    /// How much can go wrong.
    pub bounds: Bounds,
}

const EMPTY: Document = Document { epoch: 0, holder: None, cursor: 0, done: false, outlive: false };
const NEW: Worker = Worker { stage: Stage::Watching { unchanged: 0 }, current: false, write: None };

/// Half the lease, in ticks, as the crate has it.
fn limit() -> u8 {
    (send_limit(TICK * u32::from(LEASE)).as_secs()) as u8
}

/// How many batches the crate's tracker covers, when `acknowledged` ones of those from `base` to `next` are.
fn covered(base: u8, next: u8, acknowledged: u8) -> u8 {
    let mut tracker: Tracker<()> = Tracker::default();
    let numbers: Vec<_> = (base..next).map(|batch| (batch, tracker.sending())).collect();
    let mut covered = base;
    for (batch, number) in numbers {
        if acknowledged & (1 << batch) != 0 {
            let position = Some(Position::After(Key::from_value(RawBsonRef::Int32(i32::from(batch)))));
            let what = Acknowledged { position, counts: Counts::default(), findings: Vec::new() };
            covered += tracker.acknowledged(number, what).len() as u8;
        }
    }
    covered
}

impl Run {
    fn name(self) -> String {
        match self {
            Run::At(place) => place.to_string(),
            Run::Gone => "gone".into(),
        }
    }

    fn holder(self) -> Holder {
        Holder { run: self.name(), host: String::new(), process: None }
    }
}

impl Document {
    fn lease(self) -> Lease {
        match (self.epoch, self.holder) {
            (0, None) => Lease::free(),
            (epoch, holder) => Lease {
                epoch: Epoch(u64::from(epoch)),
                holder: holder.map(Run::holder),
                length_ms: (TICK * u32::from(LEASE)).as_millis() as u64,
                outlive_ms: 0,
            },
        }
    }

    fn with(self, lease: &Lease, holder: Run) -> Self {
        let holder = lease.holder.as_ref().map(|found| {
            assert_eq!(found.run, holder.name(), "only ever oneself or nobody");
            holder
        });
        Document { epoch: lease.epoch.0 as u8, holder, ..self }
    }
}

impl Worker {
    fn work(&self) -> Option<&Work> {
        match &self.stage {
            Stage::Working(work) | Stage::Releasing(work) => Some(work),
            Stage::Watching { .. } => None,
        }
    }

    fn work_mut(&mut self) -> &mut Work {
        match &mut self.stage {
            Stage::Working(work) | Stage::Releasing(work) => work,
            Stage::Watching { .. } => unreachable!("only a worker that works does this"),
        }
    }

    /// The batches that it has sent and that are not acknowledged.
    fn in_flight(&self) -> u8 {
        self.work().map_or(0, |work| ((1 << work.next) - (1 << work.base)) & !work.acknowledged)
    }
}

impl Lane {
    /// Whether a worker whose last save is this old may send.
    fn may_send(&self, age: u8) -> bool {
        !self.rules.permit_is_checked || age < limit() || (!self.rules.permit_ends_before_the_limit && age == limit())
    }

    /// From where on an age makes no difference.
    fn oldest(&self) -> u8 {
        limit() + u8::from(!self.rules.permit_ends_before_the_limit)
    }

    /// Whether it makes a difference for how long this document has not changed.
    fn is_worth_watching(&self, document: &Document) -> bool {
        document.holder.is_some() && !document.done && document.epoch < self.bounds.claims
    }

    /// What still matters then: who believes that it may send. The document is done and no write of state can take
    /// effect any more; a worker that does not look at it is the worst one.
    fn actions_after_commit(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick(None));
        for place in 0..2 {
            let worker = &state.workers[usize::from(place)];
            if !self.rules.clock_runs_while_frozen {
                actions.push(Action::Tick(Some(place)));
            }
            match worker.write.map(|write| write.progress) {
                Some(Progress::Applied) => actions.push(Action::Answer(place)),
                Some(Progress::Unknown) => actions.push(Action::ReadBack(place)),
                Some(Progress::Sent) | None => {}
            }
            if let Stage::Working(work) = &worker.stage {
                if work.permitted {
                    actions.push(Action::Send(place));
                } else if work.next < BATCHES && self.may_send(work.age) {
                    actions.push(Action::Permit(place));
                }
            }
        }
    }

    /// How far a worker believes its cursor to be.
    fn cursor(&self, work: &Work) -> u8 {
        if !self.rules.save_waits_for_acknowledgement {
            return work.next;
        }
        if !self.rules.cursor_stops_at_gaps {
            return (work.base..work.next)
                .rev()
                .find(|batch| work.acknowledged & (1 << batch) != 0)
                .map_or(work.base, |b| b + 1);
        }
        covered(work.base, work.next, work.acknowledged)
    }
}

impl State {
    /// A write takes effect.
    fn apply(&mut self, lane: &Lane, purpose: Purpose, document: Document, by: Run, latest: bool) {
        let old = self.stored.document;
        let fenced = match purpose {
            Purpose::Claim => document.epoch != old.epoch + 1,
            Purpose::Save | Purpose::Done | Purpose::Release => old.holder != Some(by) || old.epoch != document.epoch,
        };
        if fenced {
            self.broken = Some(Broken::FencedWriterWrote);
        } else if document.cursor < old.cursor || (old.done && !document.done) {
            self.broken = Some(Broken::CursorWentBack);
        }
        self.stored = Stored { document, by: Some(by), by_latest: latest };
        self.late.clear();
        for worker in &mut self.workers {
            worker.current = false;
            if let Some(write) = &mut worker.write
                && write.progress == Progress::Sent
            {
                *write = write.refused(lane);
            }
            if let Stage::Watching { unchanged } = &mut worker.stage {
                *unchanged = 0;
            }
        }
    }

    /// A worker asks for a write; whatever it asked for before is now an earlier one.
    fn ask(&mut self, lane: &Lane, place: Place, purpose: Purpose, document: Document) {
        if self.stored.by == Some(Run::At(place)) {
            self.stored.by_latest = false;
        }
        for late in self.late.iter_mut().filter(|late| late.by == place && !late.gone) {
            late.latest = false;
        }
        self.late.sort_unstable();
        let worker = &mut self.workers[usize::from(place)];
        let write = Write { purpose, document, progress: Progress::Sent, age: 0 };
        worker.write = Some(if worker.current { write } else { write.refused(lane) });
    }

    /// A write is on its way without anybody waiting for it.
    fn leave(&mut self, place: Place, write: &Write, gone: bool) {
        if write.progress == Progress::Sent {
            self.late.push(Late::new(place, write, gone));
            self.late.sort_unstable();
        }
    }

    /// The process at this place is no more; a new one takes it.
    fn replace_worker(&mut self, place: Place) {
        let worker = self.workers[usize::from(place)];
        if let Some(write) = &worker.write {
            self.leave(place, write, true);
        }
        self.stray |= worker.in_flight() & !self.target;
        self.workers[usize::from(place)] = NEW;
        let me = Run::At(place);
        if self.stored.by == Some(me) {
            self.stored.by = Some(Run::Gone);
            self.stored.by_latest = false;
        }
        if self.stored.document.holder == Some(me) {
            self.stored.document.holder = Some(Run::Gone);
        }
        for late in self.late.iter_mut().filter(|late| late.by == place && !late.gone) {
            late.bury();
        }
        self.late.sort_unstable();
        self.late.dedup();
    }

    /// A worker knows that its write took effect.
    fn succeeded(&mut self, lane: &Lane, place: Place) {
        let current = self.stored.by == Some(Run::At(place)) && self.stored.by_latest;
        let worker = &mut self.workers[usize::from(place)];
        let Some(write) = worker.write.take() else { unreachable!("it asked for it") };
        worker.current = current;
        let age = if lane.rules.save_counts_from_its_request { write.age } else { 0 };
        match write.purpose {
            Purpose::Claim => worker.stage = Stage::Working(Work::new(lane, &write.document, age)),
            Purpose::Save => worker.work_mut().age = age,
            Purpose::Done | Purpose::Release => self.replace_worker(place),
        }
    }
}

impl Late {
    fn new(by: Place, write: &Write, gone: bool) -> Self {
        let document = write.document;
        let mut late = Late {
            by,
            gone: false,
            latest: true,
            purpose: write.purpose as u8,
            epoch: document.epoch,
            holder: u8::from(document.holder.is_some()),
            cursor: document.cursor,
            done: document.done,
            outlive: document.outlive,
        };
        if gone {
            late.bury();
        }
        late
    }

    fn bury(&mut self) {
        self.gone = true;
        self.latest = false;
    }

    fn run(&self) -> Run {
        if self.gone { Run::Gone } else { Run::At(self.by) }
    }

    fn purpose(&self) -> Purpose {
        [Purpose::Claim, Purpose::Save, Purpose::Done, Purpose::Release][usize::from(self.purpose)]
    }

    fn document(&self) -> Document {
        Document {
            epoch: self.epoch,
            holder: (self.holder != 0).then(|| self.run()),
            cursor: self.cursor,
            done: self.done,
            outlive: self.outlive,
        }
    }
}

impl Write {
    /// Once the document is another one, a write is bound to be refused: what it says and how old it is makes no
    /// difference any more, and when the worker finds out is up to its reading back.
    fn refused(&self, lane: &Lane) -> Self {
        Write { document: EMPTY, progress: Progress::Unknown, age: lane.oldest(), ..*self }
    }
}

impl Work {
    fn new(lane: &Lane, claimed: &Document, age: u8) -> Self {
        let outlive = if claimed.outlive && lane.rules.takeover_is_outlived { limit().saturating_sub(age) } else { 0 };
        Work {
            epoch: claimed.epoch,
            base: claimed.cursor,
            next: claimed.cursor,
            acknowledged: 0,
            age,
            outlive,
            permitted: false,
        }
    }
}

impl Model for Lane {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            stored: Stored { document: EMPTY, by: None, by_latest: false },
            late: Vec::new(),
            workers: [NEW; 2],
            target: 0,
            stray: 0,
            committed: false,
            left: Left {
                takeovers: self.bounds.takeovers,
                crashes: self.bounds.crashes,
                unanswered: self.bounds.unanswered,
                releases: self.bounds.releases,
            },
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        if state.committed {
            self.actions_after_commit(state, actions);
            return;
        }
        let stored = &state.stored.document;
        actions.push(Action::Tick(None));
        for place in 0..2 {
            let worker = &state.workers[usize::from(place)];
            if !self.rules.clock_runs_while_frozen {
                actions.push(Action::Tick(Some(place)));
            }
            if let Some(write) = &worker.write {
                match write.progress {
                    Progress::Sent => {
                        actions.push(Action::Apply(place));
                        if state.left.unanswered > 0 {
                            actions.push(Action::GiveUp(place));
                        }
                    }
                    Progress::Applied => actions.push(Action::Answer(place)),
                    Progress::Unknown => actions.push(Action::ReadBack(place)),
                }
            }
            let idle = worker.write.is_none();
            match &worker.stage {
                Stage::Watching { unchanged } => {
                    // The two are alike until one of them has read something: let that be the first one.
                    let first = place == 0 || state.workers[0] != NEW || state.stored.by.is_some();
                    if !worker.current {
                        if idle && first {
                            actions.push(Action::Read(place));
                        }
                    } else if idle && !stored.done && stored.epoch < self.bounds.claims {
                        match stored.holder {
                            None => actions.push(Action::Claim(place, Why::Free)),
                            Some(holder) => {
                                if *unchanged >= LEASE {
                                    actions.push(Action::Claim(place, Why::Unchanged));
                                }
                                if holder == Run::Gone {
                                    actions.push(Action::Claim(place, Why::DeadProcess));
                                }
                                if state.left.takeovers > 0 {
                                    actions.push(Action::Claim(place, Why::Takeover));
                                }
                            }
                        }
                    }
                }
                Stage::Working(work) => {
                    if work.permitted {
                        actions.push(Action::Send(place));
                    } else if work.next < BATCHES && self.may_send(work.age) {
                        actions.push(Action::Permit(place));
                    }
                    if idle {
                        if self.cursor(work) < BATCHES {
                            actions.push(Action::Save(place));
                        } else if work.outlive == 0 {
                            actions.push(Action::Finish(place));
                        } else {
                            actions.push(Action::Save(place));
                        }
                        if state.left.releases > 0 && !work.permitted {
                            actions.push(Action::Release(place));
                        }
                    }
                }
                Stage::Releasing(_) => {
                    if idle {
                        actions.push(Action::Release(place));
                    }
                }
            }
            for batch in (0..BATCHES).filter(|batch| worker.in_flight() & (1 << batch) != 0) {
                actions.push(Action::Acknowledge(place, batch));
            }
            if state.left.crashes > 0 && *worker != NEW {
                actions.push(Action::Crash(place));
            }
        }
        actions.extend((0..BATCHES).filter(|batch| state.stray & (1 << batch) != 0).map(Action::Stray));
        actions.extend((0..state.late.len()).map(Action::ApplyLate));
        if stored.done {
            actions.push(Action::Commit);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick(suspended) => {
                for (place, worker) in state.workers.iter_mut().enumerate() {
                    if suspended.is_some_and(|suspended| usize::from(suspended) == place) {
                        continue;
                    }
                    if let Some(write) = &mut worker.write {
                        write.age = (write.age + 1).min(self.oldest());
                    }
                    match &mut worker.stage {
                        Stage::Watching { unchanged }
                            if worker.current && self.is_worth_watching(&state.stored.document) =>
                        {
                            *unchanged = (*unchanged + 1).min(LEASE);
                        }
                        Stage::Watching { .. } => {}
                        Stage::Working(work) | Stage::Releasing(work) => {
                            work.age = (work.age + 1).min(self.oldest());
                            work.outlive = work.outlive.saturating_sub(1);
                        }
                    }
                }
            }
            Action::Read(place) => {
                state.workers[usize::from(place)].current = true;
            }
            Action::Claim(place, why) => {
                let Stage::Watching { unchanged } = state.workers[usize::from(place)].stage else { return None };
                let evidence = match why {
                    Why::Free => Evidence::Nothing,
                    Why::Unchanged => Evidence::Unchanged(TICK * u32::from(unchanged)),
                    Why::DeadProcess => Evidence::DeadProcess,
                    Why::Takeover => Evidence::Takeover,
                };
                let me = Run::At(place);
                let old = state.stored.document;
                let granted = match old.lease().claim(me.holder(), TICK * u32::from(LEASE), evidence) {
                    Ok(granted) => granted,
                    Err(held) => unreachable!("{why:?} must suffice: {held:?}"),
                };
                // An unchanged document has outlived whoever was to be outlived when it was written.
                let inherited = self.rules.outliving_is_inherited && old.outlive && why != Why::Unchanged;
                let outlive = inherited || !granted.outlive.is_zero();
                state.ask(self, place, Purpose::Claim, Document { outlive, ..old.with(&granted.lease, me) });
                if let Stage::Watching { unchanged } = &mut state.workers[usize::from(place)].stage {
                    *unchanged = 0;
                }
                if why == Why::Takeover {
                    state.left.takeovers -= 1;
                }
            }
            Action::Save(place) | Action::Finish(place) | Action::Release(place) => {
                let worker = &mut state.workers[usize::from(place)];
                let work = *worker.work_mut();
                let me = Run::At(place);
                let mut document = Document {
                    epoch: work.epoch,
                    holder: Some(me),
                    cursor: self.cursor(&work),
                    done: false,
                    outlive: work.outlive > 0,
                };
                let purpose = match action {
                    Action::Save(_) => Purpose::Save,
                    Action::Finish(_) => {
                        document.done = true;
                        Purpose::Done
                    }
                    _ => {
                        document = document.with(&document.lease().released(), me);
                        if worker.stage == Stage::Working(work) {
                            state.left.releases -= 1;
                            if self.rules.release_is_final {
                                worker.stage = Stage::Releasing(Work { age: self.oldest(), ..work });
                            }
                        }
                        Purpose::Release
                    }
                };
                state.ask(self, place, purpose, document);
            }
            Action::Permit(place) => {
                state.workers[usize::from(place)].work_mut().permitted = true;
                if state.committed {
                    state.broken = Some(Broken::SentAfterCommit);
                }
            }
            Action::Send(place) => {
                let work = state.workers[usize::from(place)].work_mut();
                work.permitted = false;
                work.next += 1;
            }
            Action::Acknowledge(place, batch) => {
                state.target |= 1 << batch;
                state.stray &= !state.target;
                state.workers[usize::from(place)].work_mut().acknowledged |= 1 << batch;
            }
            Action::Stray(batch) => {
                state.target |= 1 << batch;
                state.stray &= !state.target;
            }
            Action::Apply(place) => {
                let write = state.workers[usize::from(place)].write?;
                state.apply(self, write.purpose, write.document, Run::At(place), true);
                state.workers[usize::from(place)].write = Some(Write { progress: Progress::Applied, ..write });
            }
            Action::ApplyLate(index) => {
                let late = state.late.remove(index);
                state.apply(self, late.purpose(), late.document(), late.run(), late.latest);
            }
            Action::Answer(place) => state.succeeded(self, place),
            Action::GiveUp(place) => {
                let write = state.workers[usize::from(place)].write?;
                state.leave(place, &write, false);
                state.left.unanswered -= 1;
                state.workers[usize::from(place)].write = Some(Write { progress: Progress::Unknown, ..write });
            }
            Action::ReadBack(place) => {
                let me = Run::At(place);
                let stored = state.stored;
                let document = stored.document;
                let worker = &mut state.workers[usize::from(place)];
                if !self.rules.conflict_looks_at_the_writer {
                    worker.current = true;
                    worker.write = None;
                } else if stored.by == Some(me) && stored.by_latest {
                    state.succeeded(self, place);
                } else if worker.current {
                    // Nothing has changed: it did not take effect, or not yet.
                    worker.write = None;
                } else if stored.by == Some(me) {
                    // An earlier write of its own came through late.
                    worker.current = true;
                    worker.write = None;
                    if document.done || document.holder.is_none() {
                        state.replace_worker(place);
                    } else {
                        let age = if self.rules.adopting_renews_nothing { self.oldest() } else { 0 };
                        match &mut worker.stage {
                            Stage::Watching { .. } => {
                                let mut work = Work::new(self, &document, age);
                                if document.outlive && self.rules.takeover_is_outlived {
                                    work.outlive = limit();
                                }
                                worker.stage = Stage::Working(work);
                            }
                            Stage::Working(work) | Stage::Releasing(work) => work.age = work.age.min(age),
                        }
                    }
                } else if worker.work().is_some() {
                    // Fenced.
                    worker.write = None;
                    state.replace_worker(place);
                } else {
                    *worker = Worker { current: true, ..NEW };
                }
            }
            Action::Crash(place) => {
                state.left.crashes -= 1;
                state.replace_worker(place);
            }
            Action::Commit => state.committed = true,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the cursor covers only what the target has acknowledged", |_: &Self, state: &State| {
                let covered = (1 << state.stored.document.cursor) - 1;
                state.target & covered == covered
            }),
            Property::always("the cursor never goes back", |_: &Self, state: &State| {
                state.broken != Some(Broken::CursorWentBack)
            }),
            Property::always("when the lane is done every batch is on the target", |_: &Self, state: &State| {
                !state.stored.document.done || state.target == ALL
            }),
            Property::always("an overtaken worker's writes of state have no effect", |_: &Self, state: &State| {
                state.broken != Some(Broken::FencedWriterWrote)
            }),
            Property::always("an epoch has one worker", |_: &Self, state: &State| {
                match (state.workers[0].work(), state.workers[1].work()) {
                    (Some(one), Some(other)) => one.epoch != other.epoch,
                    _ => true,
                }
            }),
            Property::always("no permit is good after commit", |_: &Self, state: &State| {
                state.broken != Some(Broken::SentAfterCommit)
            }),
            Property::always("without a takeover only one worker has a good permit", |lane: &Self, state: &State| {
                let good = |worker: &Worker| matches!(worker.stage, Stage::Working(work) if lane.may_send(work.age));
                state.left.takeovers < lane.bounds.takeovers || !state.workers.iter().all(good)
            }),
            Property::sometimes("a worker finishes what a crashed one began", |lane: &Self, state: &State| {
                state.left.crashes < lane.bounds.crashes
                    && state.stored.document.done
                    && state.stored.document.epoch > 1
            }),
            Property::sometimes("a takeover succeeds while the former holder works", |lane: &Self, state: &State| {
                state.left.takeovers < lane.bounds.takeovers
                    && state.workers.iter().all(|worker| worker.work().is_some())
            }),
            Property::sometimes("a success behind a lost answer is recognised", |_: &Self, state: &State| {
                (0..2).any(|place| {
                    let asked = &state.workers[usize::from(place)].write;
                    asked.as_ref().is_some_and(|write| write.progress == Progress::Unknown)
                        && state.stored.by == Some(Run::At(place))
                        && state.stored.by_latest
                })
            }),
            Property::sometimes("an earlier write that came through late is recognised", |_: &Self, state: &State| {
                (0..2).any(|place| {
                    let asked = &state.workers[usize::from(place)].write;
                    asked.as_ref().is_some_and(|write| write.progress == Progress::Unknown)
                        && state.stored.by == Some(Run::At(place))
                        && !state.stored.by_latest
                        && !state.workers[usize::from(place)].current
                })
            }),
            Property::sometimes("the job is committed while an overtaken worker lives", |_: &Self, state: &State| {
                state.committed && state.workers.iter().any(|worker| worker.work().is_some())
            }),
            Property::sometimes("what was permitted before commit arrives after it", |_: &Self, state: &State| {
                state.committed && state.workers.iter().any(|worker| worker.in_flight() != 0)
            }),
        ]
    }
}
