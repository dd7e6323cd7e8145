//! Compressing messages as the connection string says and the server accepts
//! (<https://github.com/mongodb/specifications/blob/master/source/compression/OP_COMPRESSED.md>).

use super::message::nonsense;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use mongodb::options::Compressor as DriverCompressor;
use std::io::{self, Read, Write};

/// How messages are compressed, with the level where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// Fast.
    Snappy,
    /// From 0 to 9.
    Zlib(u32),
    /// From 1 to 22.
    Zstd(i32),
}

impl Compressor {
    /// What the driver was told, where it is known here.
    pub fn of(compressor: &DriverCompressor) -> Option<Self> {
        match compressor {
            DriverCompressor::Snappy => Some(Self::Snappy),
            DriverCompressor::Zlib { level } => Some(Self::Zlib(level.unwrap_or(Compression::default().level()))),
            DriverCompressor::Zstd { level } => Some(Self::Zstd(level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))),
            _ => None,
        }
    }

    /// Its name in `hello`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Zlib(_) => "zlib",
            Self::Zstd(_) => "zstd",
        }
    }

    /// Its number in a message.
    pub fn id(self) -> u8 {
        match self {
            Self::Snappy => 1,
            Self::Zlib(_) => 2,
            Self::Zstd(_) => 3,
        }
    }

    /// Appends these parts, compressed as one.
    pub fn compress(self, parts: &[&[u8]], to: &mut Vec<u8>) -> io::Result<()> {
        match self {
            // Its block format needs everything at once.
            Self::Snappy => to.append(&mut snap::raw::Encoder::new().compress_vec(&parts.concat())?),
            Self::Zlib(level) => {
                let mut encoder = ZlibEncoder::new(to, Compression::new(level));
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()?;
            }
            Self::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(to, level)?;
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()?;
            }
        }
        Ok(())
    }
}

/// What was compressed by the compressor of this number, exactly `size` bytes.
pub fn decompress(id: u8, compressed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    // One byte more than there may be tells whether there is more.
    let most = size as u64 + 1;
    match id {
        0 => plain.extend_from_slice(compressed),
        1 if snap::raw::decompress_len(compressed)? == size => {
            plain = snap::raw::Decoder::new().decompress_vec(compressed)?;
        }
        2 => {
            ZlibDecoder::new(compressed).take(most).read_to_end(&mut plain)?;
        }
        3 => {
            zstd::Decoder::new(compressed)?.take(most).read_to_end(&mut plain)?;
        }
        _ => return Err(nonsense("an answer in a compression that was not asked for")),
    }
    if plain.len() == size { Ok(plain) } else { Err(nonsense("an answer of another size than it says")) }
}
