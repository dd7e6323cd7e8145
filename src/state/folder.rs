//! The state in a local folder: one file an object, readable with an editor.
//!
//! # What survives what
//! An object is written aside, flushed to the disk, and renamed into place; then its folder is flushed. A reader sees
//! the old content or the new one and never a part, whether the writer is killed (`kill -9`) or the power fails, and a
//! write that was acknowledged is on the disk. A replace costs two flushes: the file's and its folder's.
//!
//! # Compare-and-swap between processes
//! A writer, of a new object as of the next content of one:
//!
//! 1. writes its content to a draft in a hidden folder beside the object, and flushes it;
//! 2. renames the draft to a candidate, and removes every other candidate for that object;
//! 3. reads the object, and gives up when it is not what it is to be (absent, or the content it replaces);
//! 4. renames its candidate to the object, which fails when somebody removed it.
//!
//! Two writers cannot both replace the same content. Say Y renames after X. Y saw the old content, so it read before X
//! renamed, and had removed the others' candidates before that; X's was still there when X renamed it, so X made it after
//! Y's removal, and did its own removal later still. By then Y's candidate was there, and X removed it: Y cannot have
//! renamed it. (A test goes through every order of steps of three writers.)
//!
//! A writer whose candidate was removed begins again, then with an exclusive `flock` on the object's folder around 2 to
//! 4, but only out of politeness: it keeps writers from removing each other's candidates again and again. It is not
//! waited for long and not relied on, since a process that is *stopped* (SIGSTOP, a debugger, a suspended container) keeps
//! its locks. When such a process wakes up after others have written, its rename fails, or its content is not what it
//! was.
//!
//! Drafts and candidates have a folder of their own so that looking for other candidates takes as long as there are
//! writers, and not as long as there are objects.
//!
//! The etag is the SHA-256 of the content. That is no ABA problem although equal contents have equal etags: every
//! document carries a random write id (see [`super::document`]), so no content ever comes back.
//!
//! All this means a file system of this machine: over a network, use an object store.

use super::store::{Etag, Object, StateStore, StoreError, check_key, check_prefix, content_etag, valid_key};
use crate::random::random_id;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long to wait for a folder's lock before going on without it. It is held for a fraction of a millisecond.
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// How often to ask for it.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// How often to begin again after others removed the draft or the candidate.
const ATTEMPTS: usize = 20;

/// The folder of temporary files in each folder. No part of a key begins with a dot.
const TEMPORARY: &str = ".tmp";

/// The ends of the names of temporary files, `.<object's name>.<random id>.draft`.
const DRAFT: &str = ".draft";
const CANDIDATE: &str = ".candidate";

/// The state in a local folder.
#[derive(Debug, Clone)]
pub struct FolderStore {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    url: String,
    /// The folders that this process has made sure of: they exist, also after a power failure, and what killed processes
    /// left in them is gone.
    prepared: Mutex<HashSet<PathBuf>>,
}

impl FolderStore {
    /// The state in the folder at `path`. It is made at the first write; until then it is a store without objects.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let root = path.into();
        let url = root.display().to_string();
        Self { folder: Arc::new(Folder { root, url, prepared: Mutex::default() }) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(&self.folder);
        // Not cancelled when the caller is: a write that was given up may take effect late, as with any store.
        tokio::task::spawn_blocking(move || work(&folder)).await.unwrap_or_else(|error| {
            Err(StoreError::Ambiguous(format!("work on folder `{}` did not end: {error}", self.folder.url)))
        })
    }
}

#[async_trait]
impl StateStore for FolderStore {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |folder| {
            let body = folder.read(&folder.root.join(key))?;
            Ok(body.map(|body| Object { etag: content_etag(&body), body: body.into() }))
        })
        .await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Etag, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |folder| folder.write(&folder.root.join(key), &body, None)).await
    }

    async fn replace(&self, key: &str, body: Bytes, etag: &Etag) -> Result<Etag, StoreError> {
        check_key(key)?;
        let (key, etag) = (key.to_owned(), etag.clone());
        self.blocking(move |folder| folder.write(&folder.root.join(key), &body, Some(&etag))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.blocking(move |folder| folder.list(&prefix)).await
    }

    fn url(&self) -> &str {
        &self.folder.url
    }
}

impl Folder {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(path) {
            Ok(body) => Ok(Some(body)),
            Err(error) => self.missing(&error).then_some(None).ok_or_else(|| failed("read", path, &error)),
        }
    }

    /// Whether a read failed because there is no such object: nothing there, or only a longer or shorter key.
    fn missing(&self, error: &io::Error) -> bool {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::IsADirectory => true,
            // Unless it is the store's own folder that is a file.
            ErrorKind::NotADirectory => self.root.is_dir(),
            _ => false,
        }
    }

    /// Writes an object that is now at `expected`, or absent.
    fn write(&self, path: &Path, body: &[u8], expected: Option<&Etag>) -> Result<Etag, StoreError> {
        let parent = parent_of(path);
        if path.is_dir() {
            return Err(failed("write", path, &ErrorKind::IsADirectory.into()));
        }
        for attempt in 0..ATTEMPTS {
            // A first look, so that who has lost already writes nothing and removes nobody's file.
            let before = self.read(path)?;
            if before.as_deref().map(content_etag).as_ref() != expected {
                return Err(conflict(parent));
            }
            self.prepare(parent)?;
            let failed = |error: io::Error| failed("write", path, &error);
            let draft = Temporary::draft(path, body).map_err(failed)?;
            let lock = if attempt == 0 { None } else { lock_politely(parent) };
            let candidate = match draft.become_candidate() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                result => result.map_err(failed)?,
            };
            remove(&parent.join(TEMPORARY), |name| is_candidate_for(path, name) && !candidate.is(name))
                .map_err(failed)?;
            if self.read(path)? != before {
                drop(lock);
                return Err(conflict(parent));
            }
            match candidate.become_object(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                result => result.map_err(failed)?,
            }
            drop(lock);
            // After the lock: whoever builds on this write flushes the same folder later, and so this as well.
            flush(parent).map_err(failed)?;
            return Ok(content_etag(body));
        }
        Err(StoreError::Ambiguous(format!(
            "cannot write `{}`: other writers were faster {ATTEMPTS} times",
            path.display()
        )))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let path = self.root.join(&folder);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if self.missing(&error) => continue,
                Err(error) => return Err(failed("list", &path, &error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| failed("list", &path, &error))?;
                let kind = entry.file_type().map_err(|error| failed("list", &entry.path(), &error))?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let key = format!("{folder}{name}");
                // Temporary files among others. Symbolic links are none of ours, and not followed: they may go in circles.
                if !valid_key(&key) {
                    continue;
                }
                if kind.is_dir() {
                    folders.push(key + "/");
                } else if kind.is_file() {
                    keys.push(key);
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Makes sure of a folder in which something is to be written.
    fn prepare(&self, folder: &Path) -> Result<(), StoreError> {
        // Held all the time, so that no thread writes into a folder that another one still sweeps.
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<&Path> = folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.root) && !prepared.contains(*folder))
            .collect();
        for folder in new.into_iter().rev() {
            // A living process finds its file removed, as by any other writer, and begins again.
            let temporary = folder.join(TEMPORARY);
            make(folder)
                .and_then(|()| make(&temporary))
                .and_then(|()| remove(&temporary, is_temporary))
                .map_err(|error| failed("prepare folder", folder, &error))?;
            prepared.insert(folder.to_owned());
        }
        Ok(())
    }
}

/// A file on its way to become an object. Removed again unless it did.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Content that is on the disk.
    fn draft(target: &Path, body: &[u8]) -> io::Result<Self> {
        let name = target.file_name().and_then(|name| name.to_str()).ok_or(ErrorKind::InvalidFilename)?;
        let path = parent_of(target).join(TEMPORARY).join(format!(".{name}.{}{DRAFT}", random_id()));
        let mut file = File::create_new(&path)?;
        let draft = Self { path, renamed: false };
        file.write_all(body)?;
        file.sync_all()?;
        Ok(draft)
    }

    fn become_candidate(mut self) -> io::Result<Self> {
        let path = self.path.with_extension(&CANDIDATE[1..]);
        fs::rename(&self.path, &path)?;
        self.renamed = true;
        Ok(Self { path, renamed: false })
    }

    fn become_object(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.renamed = true;
        Ok(())
    }

    fn is(&self, name: &str) -> bool {
        self.path.file_name().is_some_and(|own| own == name)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed now is removed by the next process that writes here.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(DRAFT) || name.ends_with(CANDIDATE))
}

fn is_candidate_for(target: &Path, name: &str) -> bool {
    let id = || {
        let target = target.file_name()?.to_str()?;
        name.strip_prefix('.')?.strip_prefix(target)?.strip_prefix('.')?.strip_suffix(CANDIDATE)
    };
    // The candidates for object `a.b` would look like those for `a`, but for this.
    id().is_some_and(|id| !id.contains('.'))
}

/// Removes temporary files: whoever wrote them cannot rename them any more.
fn remove(folder: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    // Listed to the end first: what a listing shows of a folder that changes under it is no reason to miss one.
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    for entry in entries {
        if entry.file_name().to_str().is_some_and(&which) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A lost race. The winner's write becomes durable first: whoever is told of it goes on from it.
fn conflict(parent: &Path) -> StoreError {
    match flush(parent) {
        Ok(()) => StoreError::Conflict,
        Err(error) if error.kind() == ErrorKind::NotFound => StoreError::Conflict,
        Err(error) => failed("flush folder", parent, &error),
    }
}

/// The folder's lock, unless somebody keeps it for long or the file system has none: nothing depends on it.
fn lock_politely(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    // Asked again and again, since a wait in the kernel has no end.
    for _ in 0..LOCK_WAIT.as_millis() / LOCK_PAUSE.as_millis() {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::Error(_)) => break,
        }
    }
    None
}

/// Makes a folder, and those above it, that are there after a power failure as well. Also when it exists: another
/// process may have made it this moment and not have flushed it yet.
fn make(folder: &Path) -> io::Result<()> {
    let parent = parent_of(folder);
    if !folder.is_dir() {
        if !parent.is_dir() {
            make(parent)?;
        }
        match fs::create_dir(folder) {
            // Not a folder: the write into it will say so.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    match flush(parent) {
        // A folder that may be entered but not read cannot be flushed either.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

fn flush(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems cannot flush a folder and need not.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// The folder that a path lies in; that of `name` alone is `.`.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What trying again will not change is refused. Everything else, a full disk among it, may pass.
fn failed(doing: &str, path: &Path, error: &io::Error) -> StoreError {
    let text = format!("cannot {doing} `{}`: {error}", path.display());
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::Refused(format!(
            "{text}; allow this user to read and write the state's folder, or use another --state"
        )),
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename => {
            StoreError::Refused(format!("{text}; move what is in the way, or use another --state"))
        }
        _ => StoreError::Ambiguous(text),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use rustix::io::Errno;

    fn hidden(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with('.'));
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_the_dead_left_is_removed_and_never_listed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let store = FolderStore::open(root);
        store.create("before", "1".into()).await.unwrap();
        for left in [".k.dead.candidate", ".k.dead.draft", ".k.x.dead.candidate", ".note"] {
            fs::write(root.join(TEMPORARY).join(left), "x").unwrap();
        }
        assert_eq!(store.list("").await.unwrap(), ["before"]);
        // A writer removes its object's candidates, and no other's.
        store.create("k", "1".into()).await.unwrap();
        assert_eq!(hidden(&root.join(TEMPORARY)), [".k.dead.draft", ".k.x.dead.candidate", ".note"]);
        // A new process removes them all.
        FolderStore::open(root).create("new", "1".into()).await.unwrap();
        assert_eq!(hidden(&root.join(TEMPORARY)), [".note"]);
        assert_eq!(store.list("").await.unwrap(), ["before", "k", "new"]);
    }

    #[tokio::test]
    async fn a_lost_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path());
        let first = store.create("k", "1".into()).await.unwrap();
        store.replace("k", "2".into(), &first).await.unwrap();
        assert_eq!(store.replace("k", "3".into(), &first).await, Err(StoreError::Conflict));
        assert_eq!(store.create("k", "3".into()).await, Err(StoreError::Conflict));
        assert_eq!(hidden(&folder.path().join(TEMPORARY)), Vec::<String>::new());
    }

    /// One writer of the model below: what it does next, and which candidates it means to remove.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    enum Step {
        Offer,
        Look,
        Remove(u8),
        Compare,
        Rename,
        Won,
        Lost,
    }

    /// The steps of the module's doc without the lock, in every order that three writers of the same content can take.
    #[test]
    fn two_writers_never_both_win_in_any_order() {
        type State = ([Step; 3], u8, bool);
        let mut seen: HashSet<State> = HashSet::new();
        // Every writer's step, a bit for each candidate, whether the old content is still there.
        let mut open: Vec<State> = vec![([Step::Offer; 3], 0, true)];
        let mut ends = HashSet::new();
        while let Some(state) = open.pop() {
            if !seen.insert(state) {
                continue;
            }
            let (steps, ..) = state;
            assert!(steps.iter().filter(|step| **step == Step::Won).count() <= 1, "{steps:?}");
            if steps.iter().all(|step| matches!(step, Step::Won | Step::Lost)) {
                ends.insert(steps.contains(&Step::Won));
            }
            for writer in 0..3 {
                let (mut steps, mut files, mut old) = state;
                let own = 1 << writer;
                steps[writer] = match steps[writer] {
                    Step::Offer => {
                        files |= own;
                        Step::Look
                    }
                    Step::Look => Step::Remove(files & !own),
                    Step::Remove(0) => Step::Compare,
                    Step::Remove(others) => {
                        let one = others & others.wrapping_neg();
                        files &= !one;
                        Step::Remove(others & !one)
                    }
                    Step::Compare if old => Step::Rename,
                    Step::Rename if files & own != 0 => {
                        old = false;
                        files &= !own;
                        Step::Won
                    }
                    // The object changed, or its candidate is gone. It removes the candidate if there is one.
                    Step::Compare | Step::Rename => {
                        files &= !own;
                        Step::Lost
                    }
                    end @ (Step::Won | Step::Lost) => end,
                };
                open.push((steps, files, old));
            }
        }
        // They can also all lose, and then begin again.
        assert_eq!(ends, HashSet::from([true, false]));
        assert!(seen.len() > 500, "{} states", seen.len());
    }

    #[tokio::test]
    async fn a_stopped_process_that_holds_the_lock_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path());
        let etag = store.create("k", "1".into()).await.unwrap();
        // Stopped just before its rename.
        let stopped = File::open(folder.path()).unwrap();
        stopped.lock().unwrap();
        let draft = Temporary::draft(&folder.path().join("k"), b"stale").unwrap();
        let pending = draft.become_candidate().unwrap();
        store.replace("k", "2".into(), &etag).await.unwrap();
        let woken = pending.become_object(&folder.path().join("k"));
        assert_eq!(woken.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.get("k").await.unwrap().unwrap().body, "2");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn increments_are_not_lost_while_the_lock_is_out_of_order() {
        let folder = tempfile::tempdir().unwrap();
        FolderStore::open(folder.path()).create("k", "0".into()).await.unwrap();
        let stopped = File::open(folder.path()).unwrap();
        stopped.lock().unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let store = FolderStore::open(folder.path());
            writers.spawn(async move {
                let mut done = 0;
                while done < 5 {
                    let read = store.get("k").await.unwrap().unwrap();
                    let number: u32 = std::str::from_utf8(&read.body).unwrap().trim().parse().unwrap();
                    // Another content for each writer.
                    let body = format!("{}{}", number + 1, " ".repeat(writer));
                    done += u32::from(store.replace("k", body.into(), &read.etag).await.is_ok());
                }
            });
        }
        writers.join_all().await;
        let read = FolderStore::open(folder.path()).get("k").await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&read.body).unwrap().trim(), "40");
        assert_eq!(hidden(&folder.path().join(TEMPORARY)), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_file_where_a_folder_belongs_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let store = FolderStore::open(&file);
        for refused in [
            store.get("k").await.map(drop),
            store.list("").await.map(drop),
            store.list("a/").await.map(drop),
            store.create("k", "1".into()).await.map(drop),
            store.create("a/k", "1".into()).await.map(drop),
            store.replace("k", "1".into(), &content_etag(b"")).await.map(drop),
        ] {
            let Err(StoreError::Refused(text)) = refused else { panic!("{refused:?}") };
            assert!(text.contains(file.to_str().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn keys_that_continue_one_another_are_refused_and_read_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path());
        store.create("a/b", "1".into()).await.unwrap();
        assert!(matches!(store.create("a", "1".into()).await, Err(StoreError::Refused(_))));
        assert!(matches!(store.create("a/b/c", "1".into()).await, Err(StoreError::Refused(_))));
        assert_eq!(store.get("a").await.unwrap(), None);
        assert_eq!(store.get("a/b/c").await.unwrap(), None);
        assert_eq!(store.list("a/b/").await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_folder_without_permission_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        if rustix::process::geteuid().is_root() {
            // To whom every folder is writable.
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let answer = store.create("k", "1".into()).await;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }

    #[test]
    fn errors_are_sorted_by_whether_they_may_pass() {
        let path = Path::new("state/k");
        for (errno, refused) in [
            (Errno::ACCESS, true),
            (Errno::PERM, true),
            (Errno::ROFS, true),
            (Errno::NOTDIR, true),
            (Errno::NOSPC, false),
            (Errno::DQUOT, false),
            (Errno::IO, false),
            (Errno::MFILE, false),
        ] {
            let error = failed("write", path, &errno.into());
            assert_eq!(matches!(error, StoreError::Refused(_)), refused, "{error}");
            assert!(error.to_string().contains("`state/k`") && error.to_string().contains("os error"), "{error}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_are_not_followed_in_lists() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path());
        store.create("a/b", "1".into()).await.unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/circle")).unwrap();
        assert_eq!(store.list("").await.unwrap(), ["a/b"]);
    }
}
