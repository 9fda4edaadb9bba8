//! Numbers in bytes.

/// Bytes that are read and written as numbers. Outside of them there is nothing: what is read there is 0, what is
/// written there is lost. So a wrong offset, left behind by a process that was killed while it changed something, leads
/// to a wrong answer and not to a panic.
pub(crate) struct Memory<'a>(pub(crate) &'a mut [u8]);

impl Memory<'_> {
    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(crate) fn u32(&self, at: usize) -> u32 {
        self.0.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |chunk| u32::from_ne_bytes(*chunk))
    }

    #[inline]
    pub(crate) fn set_u32(&mut self, at: usize, value: u32) {
        if let Some(chunk) = self.0.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
            *chunk = value.to_ne_bytes();
        }
    }

    #[inline]
    pub(crate) fn u64(&self, at: usize) -> u64 {
        self.0.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |chunk| u64::from_ne_bytes(*chunk))
    }

    #[inline]
    pub(crate) fn set_u64(&mut self, at: usize, value: u64) {
        if let Some(chunk) = self.0.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
            *chunk = value.to_ne_bytes();
        }
    }

    /// `len` bytes; none if they aren't all inside.
    #[inline]
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        self.0.get(at..).and_then(|bytes| bytes.get(..len)).unwrap_or_default()
    }

    /// As [`Memory::bytes`], to be written.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.0.get_mut(at..).and_then(|bytes| bytes.get_mut(..len)).unwrap_or_default()
    }
}
