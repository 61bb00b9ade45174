//! Storage for the state that rules keep about past signatures: a record for each of the few templates that
//! need one.
//!
//! A record belongs to the template's id: a template that replaces a deleted one continues from its state,
//! unless the record was needed for another in between.

use alloc::vec::Vec;

use sshsm_protocol::{DeviceError, ObjectId, ObjectType};

use super::Core;
use crate::platform::Platform;
use crate::ssh::memory::Memory;
use crate::store::Record;

impl<P: Platform> Core<P> {
    /// The state kept about past signatures under a template.
    pub(crate) fn memory(&mut self, template: ObjectId) -> Result<Memory, DeviceError> {
        for slot in 0..Record::MEMORIES {
            if let Some((id, memory)) = self.slot(slot)?
                && id == template.get()
            {
                return Memory::decode(&memory).map_err(|_| DeviceError::StorageFailed);
            }
        }
        Ok(Memory::default())
    }

    /// Stores it; once this returns, it survives a power cut. [`Record::MEMORIES`] templates can have state
    /// at once.
    pub(crate) fn remember(&mut self, template: ObjectId, memory: &Memory) -> Result<(), DeviceError> {
        let (mut own, mut free) = (None, None);
        for slot in 0..Record::MEMORIES {
            let id = self.slot(slot)?.map(|(id, _)| id);
            let exists =
                |id| ObjectId::new(id).is_ok_and(|id| self.store.info((ObjectType::Template, id)).is_some());
            if id == Some(template.get()) {
                own = Some(slot);
            } else if free.is_none() && !id.is_some_and(exists) {
                free = Some(slot);
            }
        }
        let slot = own.or(free).ok_or(DeviceError::StorageFailed)?;
        let value = [template.get().to_be_bytes().as_slice(), &memory.encode()].concat();
        Ok(self.store.put_record(Record::SshMemory(slot), &value)?)
    }

    /// The template that a slot is for, and its memory.
    fn slot(&mut self, slot: u8) -> Result<Option<(u16, Vec<u8>)>, DeviceError> {
        let Some(value) = self.store.record(Record::SshMemory(slot))? else { return Ok(None) };
        let (id, memory) = value.split_first_chunk().ok_or(DeviceError::StorageFailed)?;
        Ok(Some((u16::from_be_bytes(*id), memory.to_vec())))
    }
}
