//! A network between a client and the server: a proxy that delivers late.
//!
//! Each direction of a connection has a thread that reads, and notes when, and one that writes
//! what was read once it is due. So bytes are late by the delay, however many follow each other.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnectOptions;

/// How much of a delay is not slept, for sleep ends late.
const SPUN: Duration = Duration::from_micros(100);
/// The most that is read at once.
const CHUNK: usize = 64 * 1024;

/// Listens on a port of its own until it is dropped. What is connected then stays so.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    options: PgConnectOptions,
    has_ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts one in front of the server of these options.
    ///
    /// # Errors
    ///
    /// Where the server has no address, or there is no port left.
    pub(crate) fn start(server: &PgConnectOptions, delay: Duration) -> Result<Self> {
        let host = server.get_host();
        let target = (host, server.get_port())
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .with_context(|| format!("the server is to be reached by TCP, not at {host}"))?;
        let (address, has_ended) = listen(target, delay)?;
        let options = server.clone().host("127.0.0.1").port(address.port());
        Ok(Self {
            address,
            options,
            has_ended,
        })
    }

    /// How to connect through it.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; if that fails, it was gone already.
        drop(TcpStream::connect(self.address));
    }
}

/// Forwards connections to a port of its own until the flag is set and one more comes.
fn listen(target: SocketAddr, delay: Duration) -> Result<(SocketAddr, Arc<AtomicBool>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let has_ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&has_ended);
    thread::spawn(move || {
        for client in listener.incoming() {
            if flag.load(Ordering::SeqCst) {
                return;
            }
            let forwarded = client.and_then(|client| forward(client, target, delay));
            if let Err(error) = forwarded {
                eprintln!("the proxy to {target}: {error}");
            }
        }
    });
    Ok((address, has_ended))
}

/// Connects a client with the server.
fn forward(client: TcpStream, target: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(target)?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.set_nodelay(true)?;
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let (read, due) = channel();
        thread::spawn(move || take(from, delay, &read));
        thread::spawn(move || deliver(to, &due));
    }
    Ok(())
}

/// Reads to the end, and notes when what was read is due.
fn take(mut from: TcpStream, delay: Duration, read: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The other side is told of the end by that of the channel.
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let due = Instant::now() + delay;
                if read.send((due, buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
        }
    }
}

/// Writes what is due, in order.
fn deliver(mut to: TcpStream, due: &Receiver<(Instant, Vec<u8>)>) {
    for (at, bytes) in due {
        wait_until(at);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // Who is gone already need not be told.
    let _ = to.shutdown(Shutdown::Write);
}

/// Sleeps, and spins for the rest.
fn wait_until(at: Instant) {
    let sleep = at.saturating_duration_since(Instant::now() + SPUN);
    if !sleep.is_zero() {
        thread::sleep(sleep);
    }
    while Instant::now() < at {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and a client that is connected to it through the
    /// proxy.
    fn echo(delay: Duration) -> TcpStream {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let target = server.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut client, _) = server.accept().expect("the proxy connects");
            let mut copy = client.try_clone().expect("a second handle");
            std::io::copy(&mut client, &mut copy).expect("it is sent back");
            copy.shutdown(Shutdown::Write).expect("its end too");
        });
        let (address, _) = listen(target, delay).expect("a port");
        let client = TcpStream::connect(address).expect("it listens");
        client.set_nodelay(true).expect("it is a socket");
        client
    }

    #[test]
    fn no_byte_is_early_in_either_direction() {
        let delay = Duration::from_millis(3);
        let mut client = echo(delay);
        for byte in 0..20 {
            let sent = Instant::now();
            client.write_all(&[byte]).expect("it is open");
            let mut answer = [0];
            client.read_exact(&mut answer).expect("it is answered");
            assert!(sent.elapsed() >= 2 * delay, "{:?}", sent.elapsed());
            assert_eq!(answer, [byte]);
        }
    }

    #[test]
    fn content_and_order_are_kept_to_the_end() {
        let mut client = echo(Duration::from_micros(500));
        let sent: Vec<u8> = (0..1_000_003_u32).flat_map(u32::to_le_bytes).collect();
        let mut writer = client.try_clone().expect("a second handle");
        let copy = sent.clone();
        let writing = thread::spawn(move || {
            for piece in copy.chunks(10_007) {
                writer.write_all(piece).expect("it is open");
            }
            writer.shutdown(Shutdown::Write).expect("it is open");
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("it ends");
        writing.join().expect("all was sent");
        assert!(sent == received, "{} bytes came back", received.len());
    }
}
