//! A process that does not outlive the tests, however they end.
//!
//! It runs under a small shell, its watchdog, that reads from a pipe which only the test process can write to. When the
//! test process is gone, the pipe is closed; the watchdog then kills the process, also when that is stopped, and removes
//! its folder. A pre-exec hook (PR_SET_PDEATHSIG) would need unsafe code.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::servers::Failure;

/// A server that takes no connection for this long is taken for dead.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

/// Between choosing a free port and using it another process may take it; then another one is chosen.
pub const ATTEMPTS: usize = 5;

/// A server process under its watchdog. When this is dropped, or the process that holds it ends, the server is killed
/// and its folder removed.
#[derive(Debug)]
pub struct Guarded {
    watchdog: Child,
    /// Its process number, which stays its own as long as this is there.
    pub pid: Pid,
    log: PathBuf,
}

/// Starts the server, tells its pid, and reads: a line means "kill the server, keep its folder", the end of the pipe
/// means "kill the server, remove its folder, and the folder above when this was the last one in it". The shell does
/// not reap the server before it is told to, so that the pid stays its own.
const WATCHDOG: &str = r#"
log=$1 folder=$2
shift 2
"$@" </dev/null >>"$log" 2>&1 &
pid=$!
echo "$pid"
exec >&- 2>&-
keep=
read -r keep
kill -9 "$pid"
wait
if [ -z "$keep" ]; then
  rm -rf "$folder"
  rmdir "${folder%/*}"
fi
"#;

impl Guarded {
    /// Starts it. Its stdout and stderr go to the file `log` in `folder`, a folder of its own.
    pub fn spawn(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &str)],
        folder: &Path,
    ) -> Result<Self, Failure> {
        let log = folder.join("log");
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&log)
            .arg(folder)
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A ctrl-C in the terminal is for the tests; the watchdog has to survive it.
            .process_group(0)
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = watchdog.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("{} could not be started", program.display()))?;
        Ok(Guarded { watchdog, pid, log })
    }

    /// Kills the server, keeps its folder, and returns when the process is gone.
    pub fn kill_and_keep(mut self) -> Result<(), Failure> {
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            pipe.write_all(b"keep\n")?;
        }
        self.watchdog.wait()?;
        Ok(())
    }

    /// Waits until it takes connections.
    pub fn wait_until_it_listens(&self, port: u16) -> Result<(), Failure> {
        self.wait_until(|| TcpStream::connect(address(port)).is_ok() && !self.has_ended())
    }

    /// Waits until it is ready.
    pub fn wait_until(&self, ready: impl Fn() -> bool) -> Result<(), Failure> {
        let started = Instant::now();
        while !ready() {
            if self.has_ended() || started.elapsed() > LISTENS_WITHIN {
                let log = self.log();
                let lines: Vec<&str> = log.lines().rev().take(10).collect();
                let end: Vec<&str> = lines.into_iter().rev().collect();
                return Err(format!("the server did not start; the end of its log:\n{}", end.join("\n")).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether the server ended by itself: it is a zombie then, since the watchdog does not reap it. Where there is no
    /// /proc, nobody knows, and the wait takes its full time.
    pub fn has_ended(&self) -> bool {
        self.is_in_state('Z')
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// Whether it has stopped, as `SIGSTOP` makes it.
    pub fn is_stopped(&self) -> bool {
        self.is_in_state('T')
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The state is behind the program's name, which is in brackets.
    fn is_in_state(&self, letter: char) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero()));
        state.is_ok_and(|state| state.rsplit(") ").next().is_some_and(|rest| rest.starts_with(letter)))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Closes the pipe, then waits; after `kill_and_keep` there is nothing left to wait for. A drop can tell nobody
        // of a failure, and a test that ends must not panic over it.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Where a server of the tests listens.
pub fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A folder that the watchdogs remove: a `TempDir` would not be dropped when the process is killed, and never when a
/// shared server holds it.
pub fn temporary_directory(what: &str) -> Result<PathBuf, Failure> {
    Ok(tempfile::Builder::new().prefix(&format!("mongoferry-{what}-")).tempdir()?.keep())
}

/// Asks `infra/local/install.sh` for a binary. What it says meanwhile goes to this process's stderr.
pub fn install(arguments: &[&str]) -> Result<PathBuf, Failure> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/local/install.sh");
    let output = Command::new(&script).args(arguments).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{} {} failed: {}", script.display(), arguments.join(" "), output.status).into());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
