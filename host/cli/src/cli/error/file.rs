//! A file that could not be read or written.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::output::shown;
use sshsm_client::{Failure, Kind};

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {}", shown(path))]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", shown(path))]
    Write { path: PathBuf, source: io::Error },
}

impl Failure for FileError {
    fn kind(&self) -> Kind {
        Kind::File
    }
}

impl FileError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
