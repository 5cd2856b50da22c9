//! Notices requests that state their length twice, and answers that are not read.
//!
//! Owns: the memory of whether a `content-length` line went by on a connection, and whether the
//! last write is still waiting. hyper drops that
//! line when there is a `transfer-encoding` too (and closes the connection afterwards, so nothing
//! can be smuggled), which leaves no way to *refuse* such a request but to look at the bytes.
//!
//! Never here: a decision; a change to what is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const LINE: &[u8] = b"\ncontent-length";

/// A stream that remembers whether a line that begins with `content-length` was read.
pub(super) struct Watched<S> {
    inner: S,
    seen: Arc<AtomicBool>,
    blocked: Arc<AtomicBool>,
    /// How much of `LINE` the last bytes were.
    matched: usize,
}

impl<S> Watched<S> {
    pub fn new(inner: S, seen: Arc<AtomicBool>, blocked: Arc<AtomicBool>) -> Self {
        Self {
            inner,
            seen,
            blocked,
            matched: 0,
        }
    }

    pub fn into_inner(self) -> S {
        self.inner
    }

    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.blocked.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn scan(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if byte.to_ascii_lowercase() == LINE[self.matched] {
                self.matched += 1;
                if self.matched == LINE.len() {
                    self.seen.store(true, Ordering::Relaxed);
                    self.matched = 0;
                }
            } else {
                self.matched = usize::from(*byte == b'\n');
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.scan(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_seen_however_it_is_cut() {
        let text = b"POST / HTTP/1.1\r\nx: content-length\r\n\r\n\n\nCoNtEnT-LenGTH: 5";
        for cut in 0..text.len() {
            let seen = Arc::new(AtomicBool::new(false));
            let mut watched = Watched::new((), Arc::clone(&seen), Arc::default());
            watched.scan(&text[..cut]);
            watched.scan(&text[cut..]);
            assert!(seen.load(Ordering::Relaxed), "{cut}");
        }
        let seen = Arc::new(AtomicBool::new(false));
        Watched::new((), Arc::clone(&seen), Arc::default())
            .scan(b"\r\nx: content-length\r\n\ncontent-type");
        assert!(!seen.load(Ordering::Relaxed));
    }
}
