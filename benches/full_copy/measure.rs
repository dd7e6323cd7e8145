//! What a run costs: wall, CPU time, memory. All of it from `/proc`, so on Linux alone.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::guard::Guard;
use crate::results::Cost;
use crate::servers::Failure;

/// Whatever Linux runs on tells CPU time to user space in hundredths of a second (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// How often a process is looked at. What its peak of memory gains in its last such moment is not seen.
const LOOK: Duration = Duration::from_millis(5);

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// A server is quiet when it used no more than this within [`QUIET_FOR`].
const QUIET_CPU: f64 = 0.02;
const QUIET_FOR: Duration = Duration::from_millis(500);

/// A server that is never quiet is measured as it is.
const QUIET_WITHIN: Duration = Duration::from_secs(20);

/// What is measured beside the contestant.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The source's mongods.
    pub sources: Vec<u32>,
    /// The target's mongod.
    pub target: u32,
}

impl Servers {
    /// All processes.
    pub fn all(&self) -> Vec<u32> {
        self.sources.iter().copied().chain([self.target]).collect()
    }

    fn source_cpu(&self) -> Result<f64, Failure> {
        self.sources.iter().map(|source| cpu(*source)).sum()
    }
}

/// Measures work that this process does itself.
///
/// # Errors
/// Those of the work.
pub fn own_work(servers: Servers, work: impl FnOnce() -> Result<(), Failure>) -> Result<Cost, Failure> {
    let own = std::process::id();
    let before = [cpu(own)?, servers.source_cpu()?, cpu(servers.target)?];
    let started = Instant::now();
    work()?;
    let wall_seconds = started.elapsed().as_secs_f64();
    Ok(Cost {
        wall_seconds,
        tool_cpu_seconds: cpu(own)? - before[0],
        source_cpu_seconds: servers.source_cpu()? - before[1],
        target_cpu_seconds: cpu(servers.target)? - before[2],
        peak_rss_bytes: None,
    })
}

/// Measures processes to their end. `is_done` ends those that do not end by themselves: they are killed then.
///
/// # Errors
/// A process that ended badly, or hung.
pub fn processes(
    servers: Servers,
    guard: &mut Guard,
    start: impl FnOnce() -> Result<Vec<Child>, Failure>,
    mut is_done: impl FnMut() -> Result<bool, Failure>,
) -> Result<Cost, Failure> {
    let before = [servers.source_cpu()?, cpu(servers.target)?];
    let started = Instant::now();
    let mut running = Running(start()?.into_iter().map(Process::new).collect());
    guard.watch(&running.0.iter().map(|process| process.child.id()).collect::<Vec<_>>())?;
    let mut was_done = false;
    while !running.look()? {
        was_done = is_done()?;
        if was_done {
            break;
        }
        if started.elapsed() > LIMIT {
            return Err(format!("did not end within {} minutes", LIMIT.as_secs() / 60).into());
        }
        std::thread::sleep(LOOK);
    }
    let cost = Cost {
        wall_seconds: started.elapsed().as_secs_f64(),
        tool_cpu_seconds: running.0.iter().map(|process| process.cpu).sum(),
        source_cpu_seconds: servers.source_cpu()? - before[0],
        target_cpu_seconds: cpu(servers.target)? - before[1],
        peak_rss_bytes: Some(running.0.iter().map(|process| process.peak_rss).sum()),
    };
    guard.watch(&[])?;
    if !was_done {
        running.check()?;
    }
    Ok(cost)
}

/// Processes that are killed when they are not needed any more.
struct Running(Vec<Process>);

struct Process {
    child: Child,
    cpu: f64,
    peak_rss: u64,
    has_ended: bool,
}

impl Process {
    fn new(child: Child) -> Self {
        Process { child, cpu: 0.0, peak_rss: 0, has_ended: false }
    }
}

impl Running {
    /// Notes what each has cost so far, and whether all have ended. Nobody reaps them meanwhile, so that the last look
    /// sees all that they cost.
    fn look(&mut self) -> Result<bool, Failure> {
        for process in self.0.iter_mut().filter(|process| !process.has_ended) {
            let id = process.child.id();
            process.peak_rss = process.peak_rss.max(peak_rss(id));
            let stat = Stat::read(id)?;
            process.cpu = stat.cpu;
            process.has_ended = stat.is_zombie;
        }
        Ok(self.0.iter().all(|process| process.has_ended))
    }

    fn check(&mut self) -> Result<(), Failure> {
        for process in &mut self.0 {
            let status = process.child.wait()?;
            if !status.success() {
                return Err(status.to_string().into());
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // One that has ended already cannot be killed, which is as good.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// Waits until servers have nothing left to do from before.
pub fn wait_until_quiet(servers: &[u32]) -> Result<(), Failure> {
    let started = Instant::now();
    let used = || servers.iter().map(|server| cpu(*server)).sum::<Result<f64, Failure>>();
    let mut before = used()?;
    while started.elapsed() < QUIET_WITHIN {
        std::thread::sleep(QUIET_FOR);
        let now = used()?;
        if now - before <= QUIET_CPU {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// User and system time of a process and of those of its children that it has waited for, in seconds.
fn cpu(process: u32) -> Result<f64, Failure> {
    Ok(Stat::read(process)?.cpu)
}

struct Stat {
    cpu: f64,
    is_zombie: bool,
}

impl Stat {
    fn read(process: u32) -> Result<Self, Failure> {
        let path = format!("/proc/{process}/stat");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Stat::parse(&text).ok_or_else(|| format!("{path} reads `{text}`").into())
    }

    /// The fields as proc(5) numbers them: 2 is the name in brackets, which may hold anything; 3 the state; 14 to 17
    /// utime, stime, cutime and cstime.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let ticks: u64 = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Stat { cpu: ticks as f64 / TICKS_PER_SECOND, is_zombie: *fields.first()? == "Z" })
    }
}

/// The largest resident set so far; 0 when the process has ended.
fn peak_rss(process: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
