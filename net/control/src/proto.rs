//! Messages and service of the protocol, generated from `proto/controller.proto`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("io.pravega.controller.stream.api.grpc.v1");
