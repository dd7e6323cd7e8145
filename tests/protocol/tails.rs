//! Giving tails away, as states and actions: one lane of a few partitions, workers that claim it and its tails, take
//! tails, send, freeze, die and come back late, over a store that loses answers.
//!
//! Time is left out: who may claim, and for how long a worker of an earlier claim of the *same* lane may still send, is
//! what the other model explores. Here every claim of a held lane may succeed at any moment, and every worker may send
//! as late as it likes; what must hold all the same is that no two *lanes* send anything of one partition.
//!
//! The model asks the crate what is given ([`LaneProgress::tail_to_give`], [`LaneProgress::give`]), what a refused holder
//! makes of it ([`LaneProgress::take_over`]), and which writes a document allows ([`cursors_never_retreat`]).

use mongoferry::model::catalog::Ordinal;
use mongoferry::model::choice::Order;
use mongoferry::model::invariants::cursors_never_retreat;
use mongoferry::model::lane::LaneProgress;
use mongoferry::model::namespace::Namespace;
use mongoferry::model::plan::{LaneName, PartitionNumber, PartitionSpec};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use std::time::Instant;

/// Partitions of the planned lane; lanes are named by their first one.
const PARTITIONS: u8 = 3;
const WORKERS: usize = 3;
/// How many partitions are declared begun at once at most: more than the one that is never given away.
const AHEAD: u8 = 2;

/// What the workers keep to; every value but [`Rules::PROTOCOL`] is there to be caught.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Nothing of a partition is sent before a save that says it was begun has succeeded (else: once it was asked for).
    begun_is_saved_first: bool,
    /// A gift replaces the version that it was decided on (else: whatever is there).
    gift_is_conditional: bool,
    /// A tail is given before it is claimed (else: it is claimed without a word in the lane's document).
    tail_is_given_first: bool,
    /// A holder that is refused takes over what was given away (else: it writes what it knows).
    gift_is_taken_over: bool,
    /// It does not begin what was given away (else: it sends what it was about to begin).
    begun_is_lowered: bool,
}

impl Rules {
    const PROTOCOL: Rules = Rules {
        begun_is_saved_first: true,
        gift_is_conditional: true,
        tail_is_given_first: true,
        gift_is_taken_over: true,
        begun_is_lowered: true,
    };
}

/// How much can go wrong.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// How many workers there are, up to [`WORKERS`].
    workers: usize,
    /// Claims of each lane.
    claims: u8,
    /// Workers that die, in all.
    crashes: u8,
    /// Writes whose answer is not known, in all: they may take effect at any later time.
    unanswered: u8,
}

#[derive(Debug, Clone, Copy)]
struct Lanes {
    rules: Rules,
    bounds: Bounds,
}

/// A lane's document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Document {
    /// Which version of it: a write replaces one.
    version: u8,
    epoch: u8,
    holder: Option<u8>,
    done: bool,
    live: Live,
}

/// The progress in it, or as its holder has it in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Live {
    from: u8,
    partitions: u8,
    begun: u8,
    given: Vec<u8>,
    /// As bits.
    finished: u8,
}

impl Live {
    fn new(from: u8, partitions: u8) -> Self {
        Live { from, partitions, begun: from, given: Vec::new(), finished: 0 }
    }

    fn progress(&self) -> LaneProgress {
        let lane = LaneName::planned("rs", 0).tail(PartitionNumber(self.from.into()));
        let mut progress = LaneProgress::new(lane, String::new(), self.partitions.into());
        progress.begun_below = self.begun.into();
        progress.given = self.given.iter().map(|from| PartitionNumber((*from).into())).collect();
        progress.sealed = self.finished.count_ones();
        progress
    }

    fn with(&self, progress: &LaneProgress) -> Self {
        let given = progress.given.iter().map(|from| from.0 as u8).collect();
        Live { begun: progress.begun_below as u8, given, ..self.clone() }
    }

    fn own(&self) -> std::ops::Range<u8> {
        let own = self.progress().own();
        own.start as u8..own.end as u8
    }

    fn is_finished(&self) -> bool {
        self.own().all(|partition| self.finished & 1 << partition != 0)
    }

    /// What is given of it, if anything can be.
    fn gift(&self) -> Option<Self> {
        let mut progress = self.progress();
        let spec = |number| PartitionSpec {
            number: PartitionNumber(number),
            ordinal: Ordinal(0),
            source: Namespace::new("db", "c"),
            uuid: String::new(),
            target: Namespace::new("db", "c"),
            range: mongoferry::model::partition::Range::default(),
            order: Order::Id,
            filter: None,
            documents: 0,
            bytes: 0,
        };
        let not_begun: Vec<PartitionSpec> = progress.not_begun().map(spec).collect();
        let from = progress.tail_to_give(&not_begun)?;
        progress.give(from);
        Some(self.with(&progress))
    }

    /// Where its tails are: which one begins, and where it ends.
    fn tails(&self) -> Vec<(u8, u8)> {
        self.progress().tails().map(|tail| (tail.lane.from.0 as u8, tail.partitions as u8)).collect()
    }
}

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Claim,
    Save,
    Done,
    Give,
}

/// A write that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Write {
    purpose: Purpose,
    /// The version that it replaces, 0 for none.
    replaces: u8,
    document: Document,
    /// Whether it took effect, as the answer says; None while there is none.
    applied: Option<bool>,
}

/// What a worker knows of the lane that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Work {
    epoch: u8,
    /// The version that it knows.
    version: u8,
    live: Live,
    /// What its last save that is known to have succeeded says of it.
    saved_begun: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Worker {
    work: Option<Work>,
    write: Option<Write>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// By their first partition.
    documents: [Option<Document>; PARTITIONS as usize],
    /// How many writes each has had.
    versions: [u8; PARTITIONS as usize],
    workers: [Worker; WORKERS],
    late: Vec<Write>,
    /// By partition: which lanes have sent something of it, as bits.
    senders: [u8; PARTITIONS as usize],
    crashes: u8,
    unanswered: u8,
    /// A write that the crate's own check refuses.
    broke_an_invariant: bool,
    /// A gift was refused, or taken over by a holder.
    gift_was_refused: bool,
    gift_was_taken_over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Claim(usize, u8),
    Give(usize, u8),
    Begin(usize, u8),
    Send(usize, u8),
    Finish(usize),
    Apply(usize),
    GiveUp(usize),
    Look(usize),
    ApplyLate(usize),
    Crash(usize),
}

impl State {
    /// The lanes that there are: the planned one, and all tails that documents name, with where they end.
    fn named(&self) -> Vec<(u8, u8)> {
        let mut found = vec![(0, PARTITIONS)];
        let mut next = 0;
        while let Some((from, _)) = found.get(next).copied() {
            found.extend(self.documents[usize::from(from)].iter().flat_map(|document| document.live.tails()));
            next += 1;
        }
        found
    }

    /// A write arrives at the store, which refuses it unless it replaces what is there.
    fn apply(&mut self, lanes: &Lanes, write: &Write) -> bool {
        let lane = usize::from(write.document.live.from);
        let now = self.documents[lane].as_ref();
        let is_conditional = write.purpose != Purpose::Give || lanes.rules.gift_is_conditional;
        if is_conditional && now.map_or(0, |now| now.version) != write.replaces {
            self.gift_was_refused |= write.purpose == Purpose::Give;
            return false;
        }
        if let Some(now) = now
            && cursors_never_retreat(&now.live.progress(), &write.document.live.progress()).is_err()
        {
            self.broke_an_invariant = true;
        }
        self.versions[lane] += 1;
        self.documents[lane] = Some(Document { version: self.versions[lane], ..write.document.clone() });
        true
    }

    fn ask(&mut self, place: usize, purpose: Purpose, replaces: u8, document: Document) {
        self.workers[place].write = Some(Write { purpose, replaces, document, applied: None });
    }

    /// The holder makes its change to what it knows: of the save, or of being done.
    fn save(&mut self, place: usize, done: bool) {
        let Some(work) = self.workers[place].work.clone() else { return };
        let holder = (!done).then_some(place as u8);
        let document = Document { version: 0, epoch: work.epoch, holder, done, live: work.live };
        let purpose = if done { Purpose::Done } else { Purpose::Save };
        self.ask(place, purpose, work.version, document);
    }
}

impl Model for Lanes {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            documents: [const { None }; PARTITIONS as usize],
            versions: [0; PARTITIONS as usize],
            workers: std::array::from_fn(|_| Worker::default()),
            late: Vec::new(),
            senders: [0; PARTITIONS as usize],
            crashes: self.bounds.crashes,
            unanswered: self.bounds.unanswered,
            broke_an_invariant: false,
            gift_was_refused: false,
            gift_was_taken_over: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let named = state.named();
        for (place, worker) in state.workers.iter().enumerate().take(self.bounds.workers) {
            match &worker.write {
                Some(Write { applied: None, .. }) => {
                    actions.push(Action::Apply(place));
                    if state.unanswered > 0 {
                        actions.push(Action::GiveUp(place));
                    }
                }
                Some(_) => actions.push(Action::Look(place)),
                None => {}
            }
            // Workers without a past are alike: the first of them stands for all.
            let is_first = !state.workers[..place].contains(&Worker::default()) || *worker != Worker::default();
            let Some(work) = &worker.work else {
                if worker.write.is_none() && is_first {
                    for (from, _) in &named {
                        let document = state.documents[usize::from(*from)].as_ref();
                        if document.is_none_or(|document| !document.done && document.epoch < self.bounds.claims) {
                            actions.push(Action::Claim(place, *from));
                        }
                        if document.is_some_and(|document| document.holder.is_some() && document.live.gift().is_some())
                        {
                            actions.push(Action::Give(place, *from));
                        }
                    }
                }
                continue;
            };
            let begun = if self.rules.begun_is_saved_first { work.saved_begun } else { work.live.begun };
            let sends = (work.live.from..begun).find(|partition| work.live.finished & 1 << partition == 0);
            actions.extend(sends.map(|partition| Action::Send(place, partition)));
            if worker.write.is_none() {
                let not_begun = work.live.own().end.saturating_sub(work.live.begun);
                actions.extend((1..=not_begun.min(AHEAD)).map(|ahead| Action::Begin(place, ahead)));
                if not_begun == 0 && work.live.is_finished() {
                    actions.push(Action::Finish(place));
                }
            }
            if state.crashes > 0 {
                actions.push(Action::Crash(place));
            }
        }
        actions.extend((0..state.late.len()).map(Action::ApplyLate));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Claim(place, from) => {
                let now = state.documents[usize::from(from)].clone();
                let partitions = state.named().into_iter().find(|(named, _)| *named == from).map(|(_, end)| end)?;
                let live = now.as_ref().map_or_else(|| Live::new(from, partitions), |now| now.live.clone());
                let epoch = now.as_ref().map_or(0, |now| now.epoch) + 1;
                let document = Document { version: 0, epoch, holder: Some(place as u8), done: false, live };
                state.ask(place, Purpose::Claim, now.map_or(0, |now| now.version), document);
            }
            Action::Give(place, from) => {
                let now = state.documents[usize::from(from)].clone()?;
                let live = now.live.gift()?;
                if !self.rules.tail_is_given_first {
                    let (from, partitions) = live.tails().last().copied()?;
                    let live = Live::new(from, partitions);
                    let document = Document { version: 0, epoch: 1, holder: Some(place as u8), done: false, live };
                    state.ask(place, Purpose::Claim, 0, document);
                } else {
                    state.ask(place, Purpose::Give, now.version, Document { live, ..now });
                }
            }
            Action::Begin(place, ahead) => {
                state.workers[place].work.as_mut()?.live.begun += ahead;
                state.save(place, false);
            }
            Action::Finish(place) => state.save(place, true),
            Action::Send(place, partition) => {
                let live = &mut state.workers[place].work.as_mut()?.live;
                live.finished |= 1 << partition;
                state.senders[usize::from(partition)] |= 1 << live.from;
            }
            Action::Apply(place) => {
                let write = state.workers[place].write.clone()?;
                let applied = state.apply(self, &write);
                state.workers[place].write = Some(Write { applied: Some(applied), ..write });
            }
            Action::GiveUp(place) => {
                state.unanswered -= 1;
                let write = state.workers[place].write.take()?;
                state.late.push(write.clone());
                // What it looks at next tells it no more than a refusal.
                state.workers[place].write = Some(Write { applied: Some(false), ..write });
            }
            Action::ApplyLate(index) => {
                let write = state.late.remove(index);
                state.apply(self, &write);
            }
            Action::Look(place) => self.look(&mut state, place)?,
            Action::Crash(place) => {
                state.crashes -= 1;
                let worker = std::mem::take(&mut state.workers[place]);
                state.late.extend(worker.write.filter(|write| write.applied.is_none()));
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_LANE, |_: &Self, state: &State| {
                state.senders.iter().all(|lanes| lanes.count_ones() <= 1)
            }),
            Property::always("no tail is forgotten", |_: &Self, state: &State| {
                let named = state.named();
                (0..).zip(&state.documents).all(|(from, document)| {
                    document.is_none() || named.iter().filter(|(named, _)| *named == from).count() == 1
                })
            }),
            Property::always("every partition is one lane's", |_: &Self, state: &State| {
                let named = state.named();
                let own = |(from, end): &(u8, u8)| match &state.documents[usize::from(*from)] {
                    Some(document) => document.live.own(),
                    None => *from..*end,
                };
                let mut owned: Vec<u8> = named.iter().flat_map(own).collect();
                owned.sort_unstable();
                owned == (0..PARTITIONS).collect::<Vec<u8>>()
            }),
            Property::always("when all lanes are done everything was sent", |_: &Self, state: &State| {
                let is_done = |(from, _): &(u8, u8)| {
                    state.documents[usize::from(*from)].as_ref().is_some_and(|document| document.done)
                };
                !state.named().iter().all(is_done) || state.senders.iter().all(|lanes| *lanes != 0)
            }),
            Property::always("no write breaks an invariant", |_: &Self, state: &State| !state.broke_an_invariant),
            Property::sometimes("all is done, by three lanes", |_: &Self, state: &State| {
                state.documents.iter().all(|document| document.as_ref().is_some_and(|document| document.done))
            }),
            Property::sometimes("a gift that came too late is refused", |_: &Self, state: &State| {
                state.gift_was_refused
            }),
            Property::sometimes("a holder takes over a gift", |_: &Self, state: &State| state.gift_was_taken_over),
        ]
    }
}

impl Lanes {
    /// A worker looks at what became of its write.
    fn look(&self, state: &mut State, place: usize) -> Option<()> {
        let write = state.workers[place].write.take()?;
        let now = state.documents[usize::from(write.document.live.from)].clone();
        let took_effect = write.applied == Some(true);
        if write.purpose == Purpose::Give {
            return Some(());
        }
        // What it wrote may have been changed by a gift since: it knows the version that it wrote, and no other.
        if took_effect {
            let version = write.replaces + 1;
            match write.purpose {
                Purpose::Claim => {
                    let Document { epoch, live, .. } = write.document;
                    let saved_begun = live.begun;
                    state.workers[place].work = Some(Work { epoch, version, live, saved_begun });
                }
                Purpose::Save => {
                    let lowers = self.rules.begun_is_lowered;
                    let work = state.workers[place].work.as_mut()?;
                    work.version = version;
                    work.saved_begun =
                        if lowers { write.document.live.begun } else { work.saved_begun.max(work.live.begun) };
                    if lowers {
                        work.live.begun = work.saved_begun;
                    }
                }
                Purpose::Done | Purpose::Give => state.workers[place].work = None,
            }
            return Some(());
        }
        let worker = &mut state.workers[place];
        let Some(work) = &mut worker.work else { return Some(()) };
        let Some(now) = now.filter(|now| now.epoch == work.epoch && now.holder == Some(place as u8)) else {
            // Fenced, or done by a write that came through late.
            *worker = Worker::default();
            return Some(());
        };
        // An earlier write of its own, or a gift: it makes its change again, to what is there.
        work.version = now.version;
        if self.rules.gift_is_taken_over {
            state.gift_was_taken_over |= now.live.given.len() > work.live.given.len();
            let mut progress = work.live.progress();
            let begun = work.live.begun;
            progress.take_over(&now.live.progress());
            work.live = work.live.with(&progress);
            if !self.rules.begun_is_lowered {
                // The document says what is right, and the worker sends what it meant to.
                let mut document = now;
                document.live = work.live.clone();
                work.live.begun = begun;
                state.ask(place, write.purpose, document.version, document);
                return Some(());
            }
        }
        state.save(place, write.purpose == Purpose::Done);
        Some(())
    }
}

const ONE_LANE: &str = "nothing of a partition is sent by two lanes";

const FEW: Bounds = Bounds { workers: 3, claims: 1, crashes: 0, unanswered: 0 };

fn holds(bounds: Bounds) {
    let began = Instant::now();
    let checker = Lanes { rules: Rules::PROTOCOL, bounds }.checker().threads(2).spawn_bfs().join();
    println!("{bounds:?}: {} states in {:.1?}", checker.unique_state_count(), began.elapsed());
    for property in checker.model().properties() {
        match property.expectation {
            Expectation::Always => checker.assert_no_discovery(property.name),
            _ => drop(checker.assert_any_discovery(property.name)),
        }
    }
}

fn is_caught(rules: Rules, broken: &'static str) {
    let found = HasDiscoveries::AnyOf([broken].into());
    let checker = Lanes { rules, bounds: FEW }.checker().finish_when(found).spawn_bfs().join();
    let path = checker.assert_any_discovery(broken);
    println!("{broken}: broken after {} states by {:?}", checker.unique_state_count(), path.into_actions());
}

#[test]
fn tails_hold_when_nothing_goes_wrong() {
    holds(FEW);
}

#[test]
fn tails_hold_with_a_lost_answer() {
    holds(Bounds { workers: 2, unanswered: 1, ..FEW });
}

#[test]
fn tails_hold_with_a_crash_and_a_second_claim() {
    holds(Bounds { workers: 2, claims: 2, crashes: 1, ..FEW });
}

#[test]
fn sending_before_the_save_that_says_begun_is_caught() {
    is_caught(Rules { begun_is_saved_first: false, ..Rules::PROTOCOL }, ONE_LANE);
}

#[test]
fn a_gift_of_an_older_version_is_caught() {
    is_caught(Rules { gift_is_conditional: false, ..Rules::PROTOCOL }, "no write breaks an invariant");
}

#[test]
fn a_tail_that_its_lane_does_not_know_of_is_caught() {
    is_caught(Rules { tail_is_given_first: false, ..Rules::PROTOCOL }, "no tail is forgotten");
}

#[test]
fn a_holder_that_forgets_a_gift_is_caught() {
    is_caught(Rules { gift_is_taken_over: false, ..Rules::PROTOCOL }, "no write breaks an invariant");
}

#[test]
fn sending_what_was_given_away_meanwhile_is_caught() {
    is_caught(Rules { begun_is_lowered: false, ..Rules::PROTOCOL }, ONE_LANE);
}
