//! UF2, the file format for copying an image to a board in its boot loader: 512-byte blocks, each with 256
//! bytes of flash and their address (<https://github.com/microsoft/uf2>).

const PAYLOAD: u32 = 256;
const MAGIC_START: [u32; 2] = [0x0a32_4655, 0x9e5d_5157];
const MAGIC_END: u32 = 0x0ab1_6f30;
/// The last header word is the family of boards that the file is for.
const FAMILY_PRESENT: u32 = 0x2000;
const BLOCK: usize = 512;

/// The file for an image at a page-aligned address. The rest of the last page is filled with 0.
pub(crate) fn write(family: u32, start: u32, image: &[u8]) -> Vec<u8> {
    let pages = image.chunks(PAYLOAD as usize);
    let total = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(pages.len() * BLOCK);
    for (number, page) in (0_u32..).zip(pages) {
        let [first, second] = MAGIC_START;
        let address = start + number * PAYLOAD;
        for word in [first, second, FAMILY_PRESENT, address, PAYLOAD, number, total, family] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(page);
        file.resize((number as usize + 1) * BLOCK - 4, 0);
        file.extend_from_slice(&MAGIC_END.to_le_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(block: &[u8]) -> Vec<u32> {
        block.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    #[test]
    fn blocks_are_numbered_full_pages_of_one_family_one_address_behind_the_other() {
        let image: Vec<u8> = (0..600_u32).map(|byte| byte.to_le_bytes()[0]).collect();
        let file = write(0xe48b_ff59, 0x1000_0000, &image);
        assert_eq!(file.len(), 3 * 512);
        let blocks: Vec<Vec<u32>> = file.chunks(512).map(words).collect();
        for (number, (block, address)) in
            blocks.iter().zip([0x1000_0000, 0x1000_0100, 0x1000_0200]).enumerate()
        {
            let header = [
                0x0a32_4655,
                0x9e5d_5157,
                0x2000,
                address,
                256,
                u32::try_from(number).unwrap(),
                3,
                0xe48b_ff59,
            ];
            assert_eq!(block[..8], header);
            assert_eq!(block[127], 0x0ab1_6f30);
            assert!(
                block[72..127].iter().all(|&word| word == 0),
                "the file's block is no longer than its payload"
            );
        }
        let payload: Vec<u8> = file.chunks(512).flat_map(|block| &block[32..288]).copied().collect();
        assert_eq!(payload[..600], image);
        assert_eq!(payload[600..], [0; 168]);
    }
}
