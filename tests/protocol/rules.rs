//! The protocol's rules, each of which can be broken on its own, and how much a run of the model explores.

/// What the workers keep to. [`Rules::PROTOCOL`] is the protocol; every other value is there to be caught.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A cursor covers only batches that the target has acknowledged (else: what was sent).
    pub save_waits_for_acknowledgement: bool,
    /// A cursor covers only a contiguous prefix (else: everything before the last acknowledged batch).
    pub cursor_stops_at_gaps: bool,
    /// After a conflict the worker looks at who wrote the document (else: it reloads and applies its change again).
    pub conflict_looks_at_the_writer: bool,
    /// Nothing is sent unless the last successful save is younger than half the lease.
    pub permit_is_checked: bool,
    /// The permit ends *before* half the lease has passed (else: at that very moment it is still good).
    pub permit_ends_before_the_limit: bool,
    /// A save counts from before its request (else: from its answer).
    pub save_counts_from_its_request: bool,
    /// Finding an earlier write of one's own in the document renews nothing (else: it counts as a save made just now).
    pub adopting_renews_nothing: bool,
    /// After a takeover, work is not called done before the former holder's permit has ended.
    pub takeover_is_outlived: bool,
    /// Who is still to be outlived is part of the document (else: only the worker that took over knows).
    pub outliving_is_inherited: bool,
    /// A worker that has asked for its lease to be released never sends again, whatever the answer was.
    pub release_is_final: bool,
    /// The clock that ages are measured on goes on while the process is frozen or its machine suspended.
    pub clock_runs_while_frozen: bool,
}

impl Rules {
    /// The protocol as it is meant.
    pub const PROTOCOL: Rules = Rules {
        save_waits_for_acknowledgement: true,
        cursor_stops_at_gaps: true,
        conflict_looks_at_the_writer: true,
        permit_is_checked: true,
        permit_ends_before_the_limit: true,
        save_counts_from_its_request: true,
        adopting_renews_nothing: true,
        takeover_is_outlived: true,
        outliving_is_inherited: true,
        release_is_final: true,
        clock_runs_while_frozen: true,
    };
}

/// How often what can go wrong does go wrong. Time is not bounded: ages stop growing where they stop mattering.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Claims in all.
    pub claims: u8,
    /// Of those, with `--takeover`.
    pub takeovers: u8,
    /// Workers that die and are started anew.
    pub crashes: u8,
    /// Writes of state whose answer the worker does not get: lost before or after they took effect, or late.
    pub unanswered: u8,
    /// Leases that are released before the work is done.
    pub releases: u8,
}
