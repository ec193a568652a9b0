//! One end of a connection: the client's, or the server's.

use std::future::Future as _;
use std::io;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::protocol::Message;

/// How much is read at once, in bytes.
const ROOM: usize = 16 * 1024;

/// A socket of either kind.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// One end of a connection. It is closed with the value.
pub(super) struct Peer {
    socket: Box<dyn Socket>,
    /// What was read and not yet taken.
    buffer: Vec<u8>,
}

impl Peer {
    /// The end of a client.
    pub(super) fn client(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self::new(socket))
    }

    fn new(socket: impl Socket + 'static) -> Self {
        Self {
            socket: Box::new(socket),
            buffer: Vec::new(),
        }
    }

    /// Reads the one message that has no type, with which a client begins.
    pub(super) async fn read_startup(&mut self) -> io::Result<Vec<u8>> {
        // It counts itself.
        let length = self.socket.read_u32().await?;
        let mut message = length.to_be_bytes().to_vec();
        let rest = u64::from(length).saturating_sub(4);
        let read = (&mut self.socket)
            .take(rest)
            .read_to_end(&mut message)
            .await?;
        if read as u64 != rest {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(message)
    }

    /// Reads more.
    ///
    /// Returns whether there was more.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(ROOM);
        Ok(self.socket.read_buf(&mut self.buffer).await? > 0)
    }

    /// Whether the other side has closed it, where it has nothing to say.
    pub(super) fn is_at_end(&mut self) -> bool {
        let fill = pin!(self.fill());
        let mut context = Context::from_waker(Waker::noop());
        matches!(fill.poll(&mut context), Poll::Ready(Ok(false) | Err(_)))
    }

    /// Drops what was read and not yet taken.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
    }

    /// Takes the next complete message of what was read.
    pub(super) fn next_message(&mut self) -> io::Result<Option<Message>> {
        Message::take(&mut self.buffer)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Tells that nothing more will be sent.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }

    /// Reads and drops what the server says, until it has given this many answers or is gone.
    pub(super) async fn swallow(&mut self, mut answers: usize) -> io::Result<()> {
        while answers > 0 {
            match self.next_message()? {
                Some(message) => answers -= usize::from(message.is_end_of_answer()),
                None if self.fill().await? => {}
                None => break,
            }
        }
        Ok(())
    }
}

/// Where the server is.
#[derive(Debug)]
pub(super) enum Upstream {
    Tcp(String),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Upstream {
    pub(super) fn of(options: &PgConnectOptions) -> Self {
        #[cfg(unix)]
        if let Some(directory) = options.get_socket() {
            return Self::Unix(directory.join(format!(".s.PGSQL.{}", options.get_port())));
        }
        Self::Tcp(format!("{}:{}", options.get_host(), options.get_port()))
    }

    pub(super) async fn connect(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(address) => {
                let server = TcpStream::connect(address).await?;
                server.set_nodelay(true)?;
                Ok(Peer::new(server))
            }
            #[cfg(unix)]
            Self::Unix(path) => Ok(Peer::new(UnixStream::connect(path).await?)),
        }
    }
}
