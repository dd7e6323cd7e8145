//! This process as others on the machine can recognise it, and whether another one is still there.

use crate::environment;
use crate::model::lease::Process;
use std::fs;

/// This process, `None` where others could not recognise it: without `/proc`, and in a Lambda function, whose sandboxes are
/// microVMs that may all have been resumed from one snapshot, with one `boot_id`, and the same few process numbers.
/// <https://docs.aws.amazon.com/lambda/latest/dg/snapstart-uniqueness.html>
pub fn this() -> Option<Process> {
    if environment::is_function() {
        return None;
    }
    let pid = std::process::id();
    Some(Process { boot: boot_id()?, pid_namespace: pid_namespace()?, pid, start: start_time(pid)? })
}

/// Whether a process surely is no more: it ran on this machine since it was started, in this PID namespace, and its
/// number is free or another process has it now. `false` when nobody can tell.
pub fn is_dead(process: &Process) -> bool {
    let is_here = boot_id().as_ref() == Some(&process.boot) && pid_namespace().as_ref() == Some(&process.pid_namespace);
    is_here && start_time(process.pid) != Some(process.start)
}

/// The machine's name, for people.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn pid_namespace() -> Option<String> {
    Some(fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned())
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the second field is in parentheses and may hold anything. A zombie has
/// stopped working for good, so it counts as gone.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_that_ended_is_not() {
        let here = this().unwrap();
        assert!(!is_dead(&here));
        assert!(is_dead(&Process { start: here.start + 1, ..here.clone() }));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let start = start_time(pid).unwrap_or(0);
        child.wait().unwrap();
        assert!(is_dead(&Process { pid, start, ..here.clone() }));
        assert!(!is_dead(&Process { boot: "another machine".into(), start: 1, ..here }));
    }
}
