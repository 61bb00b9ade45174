//! Object labels: forty bytes that the device keeps and never interprets.

/// A label, NUL-padded to its fixed length of 40 bytes; UTF-8 in practice, but the device does not care.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label([u8; Self::LENGTH]);

/// A label longer than 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label has {0} bytes; at most 40 fit")]
pub struct LabelTooLong(pub usize);

impl Label {
    /// Bytes on the wire.
    pub const LENGTH: usize = 40;

    /// The wire's forty bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// A label with this text.
    pub const fn new(text: &str) -> Result<Self, LabelTooLong> {
        let mut bytes = [0; Self::LENGTH];
        let Some((label, _)) = bytes.split_at_mut_checked(text.len()) else {
            return Err(LabelTooLong(text.len()));
        };
        label.copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }

    /// All forty bytes, padding included.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The bytes before the padding.
    #[must_use]
    pub fn trimmed(&self) -> &[u8] {
        let end = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        self.0.get(..end).unwrap_or_default()
    }
}

impl Default for Label {
    fn default() -> Self {
        Self([0; Self::LENGTH])
    }
}

impl core::fmt::Display for Label {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        crate::ssh::Printable(self.trimmed()).fmt(f)
    }
}

impl core::fmt::Debug for Label {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Label(\"{self}\")")
    }
}
