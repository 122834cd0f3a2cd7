"""What Bazel 4 itself loads from this repository, which it would fetch otherwise."""

proto_library = native.proto_library
proto_lang_toolchain = native.proto_lang_toolchain
