#![allow(missing_docs, unreachable_pub, dead_code)] // each test binary uses a part
//! An attacker who has the flash and knows its layout, but not the root key.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use embedded_storage::nor_flash::{ErrorType, NorFlash as _, ReadNorFlash as _};
use embedded_storage_async::nor_flash::{MultiwriteNorFlash, NorFlash, ReadNorFlash};
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use super::model::{Flash, PowerFailure, SECTOR};

/// The flash as seen by an attacker who knows its layout but not the root key.
struct Forger(Flash);

impl ErrorType for Forger {
    type Error = PowerFailure;
}

impl ReadNorFlash for Forger {
    const READ_SIZE: usize = <Flash>::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerFailure> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl NorFlash for Forger {
    const WRITE_SIZE: usize = <Flash>::WRITE_SIZE;
    const ERASE_SIZE: usize = <Flash>::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerFailure> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerFailure> {
        self.0.write(offset, bytes)
    }
}

impl MultiwriteNorFlash for Forger {}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("memory is always ready"),
    }
}

type Entries = MapStorage<u32, Forger, Cache<Uncached, Uncached, Uncached, u32>>;

fn entries(flash: &Flash) -> Entries {
    let sector = u32::try_from(SECTOR).unwrap();
    let end = u32::try_from(flash.capacity()).unwrap();
    MapStorage::new(
        Forger(flash.clone()),
        MapConfig::try_new(2 * sector..end).unwrap(),
        Cache::new_uncached(),
    )
}

pub fn get(flash: &Flash, key: u32) -> Vec<u8> {
    let mut buffer = [0; 1024];
    now(entries(flash).fetch_item::<&[u8]>(&mut buffer, &key)).unwrap().unwrap().to_vec()
}

pub fn put(flash: &Flash, key: u32, value: &[u8]) {
    now(entries(flash).store_item(&mut [0; 1024], &key, &value)).unwrap();
}

pub fn remove(flash: &Flash, key: u32) {
    now(entries(flash).remove_item(&mut [0; 1024], &key)).unwrap();
}

/// Puts many values, without looking through the flash for each.
pub fn put_all<const N: usize>(flash: &Flash, values: impl IntoIterator<Item = (u32, [u8; N])>) {
    let mut entries = entries(flash);
    for (key, value) in values {
        now(entries.store_item(&mut [0; 1024], &key, &value.as_slice())).unwrap();
    }
}
