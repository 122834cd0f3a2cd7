//! How messages are encoded: as tonic does, with little memory for a call that waits.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// What a call's buffer begins with, in bytes: most messages fit, and larger ones make it grow. An answer's is kept
/// for as long as the call is open, and tens of thousands of calls wait for their actions. `bytes` remembers the
/// size of a buffer from 1 KiB on, and makes the next one as large.
const BUFFER_SIZE_BYTES: usize = 1024;
/// How much is sent at once if there is as much, in bytes. It is tonic's own.
const YIELD_THRESHOLD_BYTES: usize = 32 << 10;

/// prost's codec for the generated clients and servers.
pub(crate) struct WireCodec<Encode, Decode> {
    messages: PhantomData<fn(Encode) -> Decode>,
}

impl<Encode, Decode> Default for WireCodec<Encode, Decode> {
    fn default() -> Self {
        Self {
            messages: PhantomData,
        }
    }
}

impl<Encode, Decode> fmt::Debug for WireCodec<Encode, Decode> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WireCodec").finish_non_exhaustive()
    }
}

impl<Encode, Decode> Codec for WireCodec<Encode, Decode>
where
    Encode: Message + 'static,
    Decode: Message + Default + 'static,
{
    type Encode = Encode;
    type Decode = Decode;
    type Encoder = <ProstCodec<Encode, Decode> as Codec>::Encoder;
    type Decoder = <ProstCodec<Encode, Decode> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Encode, Decode>::raw_encoder(buffer_settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Encode, Decode>::raw_decoder(buffer_settings())
    }
}

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER_SIZE_BYTES, YIELD_THRESHOLD_BYTES)
}
