//! The library that drives tokens: found, loaded once for the life of the process, and started.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    slot::{Slot, SlotInfo, TokenInfo},
};

use super::{
    error::{Pkcs11Error, code},
    uri::{Attribute, Uri},
};
use crate::files;

/// The environment variable that names a module if the URI does not.
pub const MODULE_VARIABLE: &str = "PKCS11_MODULE_PATH";

/// Where systems keep modules for a `module-name`.
const FOLDERS: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11",
    "/usr/lib/aarch64-linux-gnu/pkcs11",
    "/usr/lib64/pkcs11",
    "/usr/lib/pkcs11",
    "/usr/lib/softhsm",
    "/usr/local/lib/pkcs11",
    "/opt/homebrew/lib/pkcs11",
    "/usr/local/lib",
];

/// Modules are never unloaded: their own threads and exit handlers would lose their code. And starting the
/// same module twice is an error to it.
static LOADED: Mutex<Vec<Module>> = Mutex::new(Vec::new());

/// A module that has started.
#[derive(Debug, Clone)]
pub struct Module {
    path: PathBuf,
    pub(super) library: Pkcs11,
}

/// A token that is in its slot.
pub(super) struct Present {
    pub(super) slot: Slot,
    pub(super) slot_info: SlotInfo,
    pub(super) info: TokenInfo,
}

impl Module {
    /// Loads and starts the module that `uri` names, or [`MODULE_VARIABLE`] if it names none.
    ///
    /// # Errors
    /// When none is named, or what is named is not a module.
    pub fn open(uri: &Uri) -> Result<Self, Pkcs11Error> {
        let path = match (uri.text(Attribute::ModulePath), uri.text(Attribute::ModuleName)) {
            (Some(path), _) => path.into(),
            (None, Some(name)) => find(name)?,
            (None, None) => env::var_os(MODULE_VARIABLE)
                .filter(|path| !path.is_empty())
                .ok_or(Pkcs11Error::NoModule)?
                .into(),
        };
        Self::load(&path)
    }

    /// Whether a module is named for the calls that name none themselves.
    #[must_use]
    pub fn is_named() -> bool {
        env::var_os(MODULE_VARIABLE).is_some_and(|path| !path.is_empty())
    }

    fn load(path: &Path) -> Result<Self, Pkcs11Error> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.iter().find(|module| module.path == path) {
            return Ok(module.clone());
        }
        // It runs with all of this process's privileges. A bare name is searched for in the system's own
        // folders.
        if path.components().count() > 1 {
            let metadata = fs::metadata(path)
                .map_err(|source| Pkcs11Error::Load { path: path.to_owned(), source: Box::new(source) })?;
            files::check_trusted(path, &metadata)
                .map_err(|source| Pkcs11Error::Untrusted { path: path.to_owned(), source })?;
        }
        let library = Pkcs11::new(path).map_err(|error| match error {
            Error::LibraryLoading(source) => {
                Pkcs11Error::Load { path: path.to_owned(), source: Box::new(source) }
            }
            _ => Pkcs11Error::NotAModule { path: path.to_owned() },
        })?;
        match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // By another path to the same file.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(Pkcs11Error::Start { path: path.to_owned(), reason: code(&error) }),
        }
        let module = Self { path: path.to_owned(), library };
        loaded.push(module.clone());
        Ok(module)
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens that are in their slots and ready for use, and that `uri` means.
    pub(super) fn tokens(&self, uri: &Uri) -> Result<Vec<Present>, Pkcs11Error> {
        let failed = |error| Pkcs11Error::Start { path: self.path.clone(), reason: code(&error) };
        let library = self.library.get_library_info().map_err(failed)?;
        let version = library.library_version();
        let (major, version) = (version.major().to_string(), version.to_string());
        if !uri.admits(Attribute::LibraryManufacturer, library.manufacturer_id())
            || !uri.admits(Attribute::LibraryDescription, library.library_description())
            || !uri.admits(Attribute::LibraryVersion, &version)
                && !uri.admits(Attribute::LibraryVersion, &major)
        {
            return Ok(Vec::new());
        }
        let mut tokens = Vec::new();
        for slot in self.library.get_slots_with_token().map_err(failed)? {
            // A token that is pulled out in this moment is simply not there.
            let (Ok(slot_info), Ok(info)) =
                (self.library.get_slot_info(slot), self.library.get_token_info(slot))
            else {
                continue;
            };
            if info.token_initialized()
                && uri.admits(Attribute::SlotManufacturer, slot_info.manufacturer_id())
                && uri.admits(Attribute::SlotDescription, slot_info.slot_description())
                && uri.admits(Attribute::SlotId, &slot.id().to_string())
                && uri.admits(Attribute::Manufacturer, info.manufacturer_id())
                && uri.admits(Attribute::Model, info.model())
                && uri.admits(Attribute::Serial, info.serial_number())
                && uri.admits(Attribute::Token, info.label())
            {
                tokens.push(Present { slot, slot_info, info });
            }
        }
        Ok(tokens)
    }
}

impl Present {
    /// The attributes that distinguish it from other tokens.
    pub(super) fn uri(&self) -> Uri {
        Uri::default()
            .with(Attribute::Serial, self.info.serial_number().as_bytes())
            .with(Attribute::Token, self.info.label().as_bytes())
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        let slot = self.slot_info.slot_description();
        match self.info.label() {
            "" => format!("without a label in {slot:?}"),
            label => format!("{label:?}"),
        }
    }
}

/// The file of the module `name`.
fn find(name: &str) -> Result<PathBuf, Pkcs11Error> {
    let missing =
        || Pkcs11Error::ModuleName { name: name.to_owned(), folders: FOLDERS.map(str::to_owned).to_vec() };
    // A name is not a path.
    if name.contains('/') {
        return Err(missing());
    }
    FOLDERS
        .iter()
        .flat_map(|folder| [format!("{folder}/{name}.so"), format!("{folder}/lib{name}.so")])
        .chain([format!("/usr/local/lib/lib{name}.dylib")])
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(uri: &str) -> Pkcs11Error {
        Module::open(&uri.parse().unwrap()).unwrap_err()
    }

    #[test]
    fn what_is_no_module_is_told_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = |path: &Path| open(&format!("pkcs11:?module-path={}", path.display()));
        assert!(matches!(path(Path::new("/no/such/module.so")), Pkcs11Error::Load { .. }));
        assert!(matches!(path(file.path()), Pkcs11Error::Load { .. }));
        assert!(matches!(path(Path::new("libc.so.6")), Pkcs11Error::NotAModule { .. }));
        for name in ["no-such-module", "..%2Fx"] {
            let error = open(&format!("pkcs11:?module-name={name}"));
            assert!(matches!(error, Pkcs11Error::ModuleName { .. }), "{error:?}");
        }
    }
}
