//! Bounds-checked reading and writing of big-endian wire structures.
//!
//! A [`Reader`] hands out slices of its input and insists on being empty at the end; a [`Writer`] fills a
//! caller's buffer and refuses to overflow it.

/// Why a structure could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The input ended inside a field.
    #[error("input ends early: {needed} bytes needed, {available} left")]
    Truncated {
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that were left.
        available: usize,
    },
    /// Bytes were left after the last field.
    #[error("{remaining} unexpected bytes at the end")]
    Trailing {
        /// Bytes left over.
        remaining: usize,
    },
    /// The output buffer is too small.
    #[error("output needs {needed} bytes, buffer has {available} left")]
    NoSpace {
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that were left.
        available: usize,
    },
}

/// Reads big-endian fields from the front of a byte string.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self
            .rest
            .split_at_checked(n)
            .ok_or(CodecError::Truncated { needed: n, available: self.rest.len() })?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(CodecError::Truncated { needed: N, available: self.rest.len() })?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Succeeds when nothing is left.
    pub fn finish(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            remaining => Err(CodecError::Trailing { remaining }),
        }
    }
}

/// Appends big-endian fields to a caller's buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    /// Starts at the first byte of `buffer`.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    /// Room for `n` bytes, to be filled by the caller.
    pub fn reserve(&mut self, n: usize) -> Result<&mut [u8], CodecError> {
        let available = self.buffer.len() - self.length;
        let room = self
            .buffer
            .get_mut(self.length..)
            .and_then(|free| free.get_mut(..n))
            .ok_or(CodecError::NoSpace { needed: n, available })?;
        self.length += n;
        Ok(room)
    }

    /// Appends `bytes` as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.reserve(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> Result<(), CodecError> {
        self.bytes(&[value])
    }

    /// Appends two bytes, big-endian.
    pub fn u16(&mut self, value: u16) -> Result<(), CodecError> {
        self.bytes(&value.to_be_bytes())
    }

    /// Appends four bytes, big-endian.
    pub fn u32(&mut self, value: u32) -> Result<(), CodecError> {
        self.bytes(&value.to_be_bytes())
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What has been written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Forgets what has been written and clears it.
    pub fn clear(&mut self) {
        if let Some(written) = self.buffer.get_mut(..self.length) {
            written.fill(0);
        }
        self.length = 0;
    }
}

/// SSH structures are encoded by `ssh-encoding` straight into the response.
impl ssh_encoding::Writer for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> ssh_encoding::Result<()> {
        self.bytes(bytes).map_err(|_| ssh_encoding::Error::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_says_how_much_was_missing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u32(), Err(CodecError::Truncated { needed: 4, available: 1 }));
        assert_eq!(reader.finish(), Err(CodecError::Trailing { remaining: 1 }));
    }

    #[test]
    fn a_full_writer_refuses_and_keeps_what_it_has() {
        let mut buffer = [0; 3];
        let mut writer = Writer::new(&mut buffer);
        writer.u16(0x0102).unwrap();
        assert_eq!(writer.u16(3), Err(CodecError::NoSpace { needed: 2, available: 1 }));
        assert_eq!(writer.written(), [1, 2]);
    }
}
