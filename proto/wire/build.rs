//! Compiles every `.proto` file below `proto/` to Rust, without a `protoc` binary.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use protox::prost::Message as _;
use tonic_prost_build::Config;

const PROTO_ROOT: &str = "proto";
/// Where `Any` values say their type is defined, as every other implementation does.
const TYPE_URL_DOMAIN: &str = "type.googleapis.com";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PROTO_ROOT}");

    let mut files = Vec::new();
    find_protos(Path::new(PROTO_ROOT), &mut files)?;
    files.sort();
    let mut descriptors = protox::compile(&files, [PROTO_ROOT])?;

    let mut config = Config::new();
    config
        .enable_type_names()
        .type_name_domain(["."], TYPE_URL_DOMAIN);
    tonic_prost_build::configure()
        .bytes(".")
        // Ordered, so that equal messages have equal encodings.
        .btree_map(".")
        .codec_path("crate::codec::WireCodec")
        .include_file("packages.rs")
        .compile_fds_with_config(descriptors.clone(), config)?;

    // The comments are in the generated code by now; reflection has no use for them.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Ok(())
}

fn find_protos(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
    Ok(())
}
