//! Fuzzes [`regatta_proto_fuzz::resource_name`]; built without fuzzing, it replays the files that it is given.
#![cfg_attr(fuzzing, no_main)]

regatta_proto_fuzz::fuzz_target!(regatta_proto_fuzz::resource_name);
