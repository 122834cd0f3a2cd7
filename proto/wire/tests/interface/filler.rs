//! Makes an encoded value of any message out of its descriptor, with every field set.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

/// No message of the packages nests deeper; it bounds recursive ones.
const MAX_DEPTH: usize = 12;
/// How many elements a repeated field gets. A map gets one entry, for want of an order.
const REPEATED: usize = 2;

/// The messages and enums of a descriptor set by full name, and the package of each.
pub(crate) struct Pool {
    messages: BTreeMap<String, (String, DescriptorProto)>,
    enums: BTreeMap<String, (String, EnumDescriptorProto)>,
}

impl Pool {
    pub(crate) fn new(encoded: &[u8]) -> Self {
        let mut pool = Self {
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
        };
        let files = FileDescriptorSet::decode(encoded).expect("our own descriptors");
        for file in files.file {
            pool.add_file(file);
        }
        pool
    }

    fn add_file(&mut self, file: FileDescriptorProto) {
        let package = file.package().to_owned();
        for message in file.message_type {
            self.add_message(&package, &package, message);
        }
        for r#enum in file.enum_type {
            self.add_enum(&package, &package, r#enum);
        }
    }

    fn add_message(&mut self, package: &str, scope: &str, message: DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in message.nested_type.clone() {
            self.add_message(package, &name, nested);
        }
        for r#enum in message.enum_type.clone() {
            self.add_enum(package, &name, r#enum);
        }
        self.messages.insert(name, (package.to_owned(), message));
    }

    fn add_enum(&mut self, package: &str, scope: &str, r#enum: EnumDescriptorProto) {
        let name = format!("{scope}.{}", r#enum.name());
        self.enums.insert(name, (package.to_owned(), r#enum));
    }

    /// The full names of the messages in a package, without the entries of maps.
    pub(crate) fn messages_in<'a>(&'a self, package: &'a str) -> impl Iterator<Item = &'a str> {
        self.messages
            .iter()
            .filter(move |(_, (of, message))| of == package && !is_map_entry(message))
            .map(|(name, _)| name.as_str())
    }

    /// The full names of the enums in a package.
    pub(crate) fn enums_in<'a>(&'a self, package: &'a str) -> impl Iterator<Item = &'a str> {
        self.enums
            .iter()
            .filter(move |(_, (of, _))| of == package)
            .map(|(name, _)| name.as_str())
    }

    /// The names and numbers of an enum's values.
    pub(crate) fn enum_values(&self, name: &str) -> Vec<(&str, i32)> {
        let (_, r#enum) = &self.enums[name];
        r#enum
            .value
            .iter()
            .map(|value| (value.name(), value.number()))
            .collect()
    }

    fn message(&self, name: &str) -> &DescriptorProto {
        &self.messages[name.trim_start_matches('.')].1
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message
        .options
        .as_ref()
        .is_some_and(|options| options.map_entry())
}

/// An encoded message in canonical form: fields by number, numbers packed.
pub(crate) struct Sample {
    pub(crate) encoded: Vec<u8>,
    /// The value of every field of type `bytes`.
    pub(crate) blobs: Vec<Bytes>,
}

/// Makes up the values: each differs from all others as far as its type allows, and none is a default.
pub(crate) struct Filler<'a> {
    pool: &'a Pool,
    /// Which member of each oneof is set.
    variant: usize,
    counter: i32,
    blobs: Vec<Bytes>,
}

impl<'a> Filler<'a> {
    pub(crate) fn fill(pool: &'a Pool, message: &str, variant: usize) -> Sample {
        let mut filler = Self {
            pool,
            variant,
            counter: 0,
            blobs: Vec::new(),
        };
        let encoded = filler.message(message, 0);
        Sample {
            encoded,
            blobs: filler.blobs,
        }
    }

    fn message(&mut self, name: &str, depth: usize) -> Vec<u8> {
        let mut encoded = Vec::new();
        if depth == MAX_DEPTH {
            return encoded;
        }
        let message = self.pool.message(name);
        let mut fields: Vec<&FieldDescriptorProto> = message
            .field
            .iter()
            .filter(|field| self.is_chosen(message, field))
            .collect();
        fields.sort_by_key(|field| field.number());
        for field in fields {
            self.field(field, depth, &mut encoded);
        }
        encoded
    }

    /// Whether the field is outside any oneof or the member that this variant sets.
    fn is_chosen(&self, message: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
        let Some(oneof) = field.oneof_index else {
            return true;
        };
        let members: Vec<i32> = message
            .field
            .iter()
            .filter(|member| member.oneof_index == Some(oneof))
            .map(FieldDescriptorProto::number)
            .collect();
        members[self.variant % members.len()] == field.number()
    }

    fn field(&mut self, field: &FieldDescriptorProto, depth: usize, encoded: &mut Vec<u8>) {
        let wire_type = wire_type(field.r#type());
        let number = u32::try_from(field.number()).expect("field numbers are positive");
        let is_map =
            field.r#type() == Type::Message && is_map_entry(self.pool.message(field.type_name()));
        let count = match field.label() {
            Label::Repeated if !is_map => REPEATED,
            Label::Repeated | Label::Optional | Label::Required => 1,
        };
        if field.label() == Label::Repeated && wire_type == WireType::Varint {
            let packed: Vec<u8> = (0..count).flat_map(|_| self.value(field, depth)).collect();
            encode_key(number, WireType::LengthDelimited, encoded);
            delimited(&packed, encoded);
            return;
        }
        for _ in 0..count {
            let value = self.value(field, depth);
            encode_key(number, wire_type, encoded);
            match wire_type {
                WireType::LengthDelimited => delimited(&value, encoded),
                _ => encoded.extend(value),
            }
        }
    }

    /// The encoding of one value, without key and length.
    fn value(&mut self, field: &FieldDescriptorProto, depth: usize) -> Vec<u8> {
        self.counter += 1;
        let small = self.counter;
        let large = i64::from(small) + (1 << 40);
        match field.r#type() {
            Type::Message => self.message(field.type_name(), depth + 1),
            Type::String => format!("text {small}").into_bytes(),
            Type::Bytes => {
                let blob = Bytes::from(format!("blob {small}"));
                self.blobs.push(blob.clone());
                blob.to_vec()
            }
            Type::Bool => varint(1),
            // Negative, so that a signed type differs from an unsigned one.
            Type::Int32 => varint(i64::from(-small).cast_unsigned()),
            Type::Int64 => varint((-large).cast_unsigned()),
            Type::Uint32 => varint(u64::from(small.unsigned_abs())),
            Type::Uint64 => varint(large.unsigned_abs()),
            Type::Enum => varint(u64::from(self.enum_number(field.type_name()))),
            other => panic!("{}: no foreign message had a {other:?}", field.name()),
        }
    }

    /// Any number of the enum but zero.
    fn enum_number(&self, name: &str) -> u32 {
        let numbers: Vec<u32> = self
            .pool
            .enum_values(name.trim_start_matches('.'))
            .into_iter()
            .filter_map(|(_, number)| u32::try_from(number).ok().filter(|&number| number > 0))
            .collect();
        let turn = usize::try_from(self.counter).expect("the counter is positive");
        numbers[turn % numbers.len()]
    }
}

fn wire_type(r#type: Type) -> WireType {
    match r#type {
        Type::Message | Type::String | Type::Bytes => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

fn varint(value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode_varint(value, &mut encoded);
    encoded
}

fn delimited(value: &[u8], encoded: &mut Vec<u8>) {
    encode_varint(value.len() as u64, encoded);
    encoded.extend_from_slice(value);
}
