//! Stands between a ledger and its server, and cuts the first connection that commits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

/// What a server's socket is called in its directory, on the default port.
const SOCKET: &str = ".s.PGSQL.5432";
/// How a commit is asked for: the statement's text and its end (simple query protocol).
const COMMIT: &[u8] = b"COMMIT\0";

/// When the connection is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    BeforeTheCommitArrives,
    BeforeItsAnswerArrives,
}

pub(crate) struct CuttingProxy {
    directory: TempDir,
    armed: Arc<AtomicBool>,
    accepting: AbortHandle,
}

impl CuttingProxy {
    pub(crate) fn start(server: &Path, cut: Cut) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join(SOCKET)).expect("a socket");
        let armed = Arc::new(AtomicBool::new(false));
        let accepting = tokio::spawn(accept(
            listener,
            server.join(SOCKET),
            cut,
            Arc::clone(&armed),
        ));
        Self {
            directory,
            armed,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The next commit is cut; later ones are not.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_cut(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, server: PathBuf, cut: Cut, armed: Arc<AtomicBool>) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let server = UnixStream::connect(&server).await.expect("the server runs");
        tokio::spawn(pass_on(client, server, cut, Arc::clone(&armed)));
    }
}

/// Passes on what either side says, up to the cut.
async fn pass_on(mut client: UnixStream, mut server: UnixStream, cut: Cut, armed: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let mut cut_answer = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(1..) = read else { return };
                let asked = &asked[..read.expect("it was read")];
                let commits = asked.windows(COMMIT.len()).any(|window| window == COMMIT);
                if commits && armed.swap(false, Ordering::SeqCst) {
                    match cut {
                        Cut::BeforeTheCommitArrives => return,
                        Cut::BeforeItsAnswerArrives => cut_answer = true,
                    }
                }
                if server.write_all(asked).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(1..) = read else { return };
                // What it says after it was asked to commit, it says once it has.
                if cut_answer { return }
                let answered = &answered[..read.expect("it was read")];
                if client.write_all(answered).await.is_err() { return }
            }
        }
    }
}
