//! The state in a local folder: one file an object, readable with an editor.
//!
//! # What survives what
//! An object is written aside, flushed to the disk, and renamed into place; then its folder is flushed. A reader sees
//! the old content or the new one and never a part, whether the writer is killed (`kill -9`) or the power fails, and a
//! write that was acknowledged is on the disk. A replace costs two flushes: the file's and its folder's.
//!
//! # Compare-and-swap between processes
//! - create: `renameat2(RENAME_NOREPLACE)`, atomic by itself; where a file system lacks it, `link`, as atomic.
//! - replace: comparing and renaming happen under an exclusive `flock` on the object's folder. The kernel drops it with
//!   its process, however that ends.
//!
//! A *stopped* process (SIGSTOP, a debugger) keeps its lock. So that it does not stop the others for long, nothing slow
//! happens under the lock (reading a small file and renaming one; both flushes are outside), and waiting for it is
//! bounded.
//!
//! The etag is the SHA-256 of the content. That is no ABA problem although equal contents have equal etags: every
//! document carries a random write id (see [`super::document`]), so no content ever comes back.
//!
//! `flock` and rename mean a local file system: over NFS, use an object store.

use super::store::{Etag, Object, StateStore, StoreError, check_key, check_prefix, content_etag, valid_key};
use crate::random::random_id;
use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long to wait for a folder's lock. It is held for well under a millisecond, so whoever holds it for this long is
/// stopped.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How often to ask for it.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// The end of a temporary file's name; its beginning is a dot. Keys have no part that begins with one.
const TEMPORARY: &str = ".tmp";

/// The state in a local folder.
#[derive(Debug, Clone)]
pub struct FolderStore {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    url: String,
    /// The folders that this process has made sure of: they exist, also after a power failure, and the temporary files
    /// of killed processes are gone from them.
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
        self.blocking(move |folder| folder.create(&folder.root.join(key), &body)).await
    }

    async fn replace(&self, key: &str, body: Bytes, etag: &Etag) -> Result<Etag, StoreError> {
        check_key(key)?;
        let (key, etag) = (key.to_owned(), etag.clone());
        self.blocking(move |folder| folder.replace(&folder.root.join(key), &body, &etag)).await
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

    fn create(&self, path: &Path, body: &[u8]) -> Result<Etag, StoreError> {
        let parent = self.prepare_parent(path)?;
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(failed("write", path, &ErrorKind::IsADirectory.into())),
            Ok(_) => return Err(conflict(parent)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("write", path, &error)),
        }
        let temporary = Temporary::write(path, body).map_err(|error| failed("write", path, &error))?;
        match temporary.become_new(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(conflict(parent)),
            Err(error) => return Err(failed("write", path, &error)),
        }
        flush(parent).map_err(|error| failed("flush the folder of", path, &error))?;
        Ok(content_etag(body))
    }

    fn replace(&self, path: &Path, body: &[u8], etag: &Etag) -> Result<Etag, StoreError> {
        // A first look without the lock: who has lost already need not write anything.
        let Some(current) = self.read(path)?.filter(|current| content_etag(current) == *etag) else {
            return Err(path.parent().map_or(StoreError::Conflict, conflict));
        };
        let parent = self.prepare_parent(path)?;
        let temporary = Temporary::write(path, body).map_err(|error| failed("write", path, &error))?;
        {
            let _lock = lock(parent)?;
            if self.read(path)?.is_none_or(|now| now != current) {
                return Err(conflict(parent));
            }
            temporary.replace(path).map_err(|error| failed("write", path, &error))?;
        }
        // Outside the lock: whoever builds on this write meanwhile flushes the same folder after us, and so this as well.
        flush(parent).map_err(|error| failed("flush the folder of", path, &error))?;
        Ok(content_etag(body))
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

    /// Makes sure of the folder that an object is to be written in.
    fn prepare_parent<'path>(&self, path: &'path Path) -> Result<&'path Path, StoreError> {
        let parent = parent_of(path);
        let mut missing: Vec<&Path> = Vec::new();
        {
            let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            for folder in parent.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
                if prepared.contains(folder) {
                    break;
                }
                missing.push(folder);
            }
        }
        for folder in missing.into_iter().rev() {
            make(folder).and_then(|()| sweep(folder)).map_err(|error| failed("prepare folder", folder, &error))?;
            self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        }
        Ok(parent)
    }
}

/// A file beside the one that it is to become, flushed. Removed again unless it did.
struct Temporary {
    path: PathBuf,
    /// Its lock shows that its writer is alive. Released when this is dropped.
    _locked: File,
    moved: bool,
}

impl Temporary {
    fn write(target: &Path, body: &[u8]) -> io::Result<Self> {
        let name = target.file_name().and_then(|name| name.to_str()).ok_or(ErrorKind::InvalidFilename)?;
        let path = parent_of(target).join(format!(".{name}.{}{TEMPORARY}", random_id()));
        let mut file = File::create_new(&path)?;
        // When another process sweeps the folder just now, it may take this file for a dead one's. Then the rename
        // finds nothing, which is no answer, and the write is tried again.
        let locked = file.lock();
        let temporary = Self { path, _locked: file.try_clone()?, moved: false };
        locked?;
        file.write_all(body)?;
        file.sync_all()?;
        Ok(temporary)
    }

    fn replace(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.moved = true;
        Ok(())
    }

    fn become_new(mut self, target: &Path) -> io::Result<()> {
        match renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.moved = true;
                Ok(())
            }
            // The file system does not know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(&self.path, target),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.moved {
            // What cannot be removed now is swept by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A lost race. The winner's write becomes durable first: whoever is told of it goes on from it.
fn conflict(parent: &Path) -> StoreError {
    match flush(parent) {
        Ok(()) => StoreError::Conflict,
        Err(error) if error.kind() == ErrorKind::NotFound => StoreError::Conflict,
        Err(error) => failed("flush folder", parent, &error),
    }
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let file = File::open(folder).map_err(|error| failed("lock folder", folder, &error))?;
    // Asked again and again, since a thread that waits in the kernel could not be told to stop.
    let attempts = LOCK_WAIT.as_millis() / LOCK_PAUSE.as_millis();
    for _ in 0..attempts {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => {
                return Err(StoreError::Refused(format!(
                    "cannot lock folder `{}`: {error}; the state needs a local file system, or an object store \
                     (s3://bucket/prefix)",
                    folder.display()
                )));
            }
        }
    }
    Err(StoreError::Ambiguous(format!(
        "folder `{}` has been locked by another process for {} s; is one stopped in the middle of a write?",
        folder.display(),
        LOCK_WAIT.as_secs()
    )))
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

/// Removes the temporary files of processes that are gone.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let temporary = name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(TEMPORARY));
        if !temporary || !entry.file_type()?.is_file() {
            continue;
        }
        // What cannot be opened, locked or removed stays: it harms nobody.
        if let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
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

    fn hidden(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with('.'));
        names
    }

    #[tokio::test]
    async fn leftovers_of_the_dead_are_swept_and_the_living_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join(".k.dead.tmp"), "x").unwrap();
        let living = File::create(root.join(".k.living.tmp")).unwrap();
        living.lock().unwrap();
        fs::write(root.join(".note"), "somebody's own").unwrap();
        let store = FolderStore::open(root);
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
        store.create("k", "1".into()).await.unwrap();
        let mut left = hidden(root);
        left.sort();
        assert_eq!(left, [".k.living.tmp", ".note"]);
        assert_eq!(store.list("").await.unwrap(), ["k"]);
    }

    #[tokio::test]
    async fn a_lost_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path());
        let first = store.create("k", "1".into()).await.unwrap();
        store.replace("k", "2".into(), &first).await.unwrap();
        assert_eq!(store.replace("k", "3".into(), &first).await, Err(StoreError::Conflict));
        assert_eq!(store.create("k", "3".into()).await, Err(StoreError::Conflict));
        assert_eq!(hidden(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn creating_is_exclusive_also_without_the_renames_flag() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("k");
        let first = Temporary::write(&target, b"1").unwrap();
        let second = Temporary::write(&target, b"2").unwrap();
        fs::hard_link(&first.path, &target).unwrap();
        drop(first);
        assert_eq!(second.become_new(&target).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"1");
        assert_eq!(hidden(folder.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_stopped_process_that_holds_the_lock_does_not_stop_others_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path());
        let etag = store.create("k", "1".into()).await.unwrap();
        let stopped = File::open(folder.path()).unwrap();
        stopped.lock().unwrap();
        // Creating needs no lock at all.
        store.create("other", "1".into()).await.unwrap();
        let Err(StoreError::Ambiguous(text)) = store.replace("k", "2".into(), &etag).await else { panic!() };
        assert!(text.contains("locked by another process"), "{text}");
        drop(stopped);
        store.replace("k", "2".into(), &etag).await.unwrap();
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
