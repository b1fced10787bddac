//! Compiles `proto/controller.proto` with a compiler written in Rust, so that building needs no
//! `protoc` on the machine. The client half is generated for the tests and for tools.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/controller.proto");
    let files = protox::compile(["controller.proto"], ["proto"])?;
    tonic_prost_build::configure().btree_map(".").build_transport(false).compile_fds(files)?;
    Ok(())
}
