//! `thalweg serve`: the server in the foreground, until SIGTERM or SIGINT.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use thalweg_server::config::{AdminPort, ByteSize, Config, DeviceKind};
use thalweg_server::limits::{LimitSetting, Limits};

/// Settings of the server. Each can be given as an environment variable too.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Data directory; made when it does not exist.
    #[arg(long, value_name = "DIR", env = "THALWEG_DATA", default_value = "thalweg-data")]
    data: PathBuf,
    /// Address to listen on, and to tell clients.
    #[arg(long, value_name = "ADDRESS", env = "THALWEG_LISTEN", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port of the controller.
    #[arg(long, value_name = "PORT", env = "THALWEG_CONTROLLER_PORT", default_value_t = 9090)]
    controller_port: u16,
    /// Port of shard 0; shard i listens on this plus i.
    #[arg(long, value_name = "PORT", env = "THALWEG_DATA_PORT", default_value_t = 12345)]
    data_port: u16,
    /// Number of shards of a new data directory [default: one per core].
    #[arg(long, value_name = "N", env = "THALWEG_SHARDS")]
    shards: Option<u16>,
    /// Memory for event data, as in 256MiB.
    #[arg(long, value_name = "SIZE", env = "THALWEG_CACHE", default_value = "512MiB")]
    cache: ByteSize,
    /// Disk space for the journals of all shards [default: 80 % of what is free].
    #[arg(long, value_name = "SIZE", env = "THALWEG_JOURNAL")]
    journal: Option<ByteSize>,
    /// Size of one journal file.
    #[arg(long, value_name = "SIZE", env = "THALWEG_JOURNAL_FILE", default_value = "256MiB")]
    journal_file: ByteSize,
    /// Serve all shards on the one data port, passing on what belongs to another shard.
    #[arg(long, env = "THALWEG_SINGLE_PORT")]
    single_port: bool,
    /// Do not pin shards to cores.
    #[arg(long, env = "THALWEG_NO_PIN")]
    no_pin: bool,
    /// How disk and sockets are reached: ring, or portable where io_uring is forbidden.
    #[arg(long, value_name = "NAME", env = "THALWEG_DEVICE", default_value = "ring")]
    device: DeviceKind,
    /// Memory of the process, the cache included [default: the cache and 1 GiB].
    #[arg(long, value_name = "SIZE", env = "THALWEG_MEMORY")]
    memory: Option<ByteSize>,
    /// Address and port of metrics and health, or off [default: 127.0.0.1:9099 if it is free].
    #[arg(long, value_name = "ADDRESS:PORT", env = "THALWEG_ADMIN")]
    admin: Option<AdminPort>,
    /// Sets a bound on what clients may do; may be repeated. An unknown name shows all of them.
    #[arg(long = "limit", value_name = "NAME=VALUE", env = "THALWEG_LIMITS")]
    #[arg(value_delimiter = ',')]
    limits: Vec<LimitSetting>,
}

impl From<Arguments> for Config {
    fn from(arguments: Arguments) -> Self {
        let mut limits = Limits::default();
        limits.apply(&arguments.limits);
        Self {
            data: arguments.data,
            listen: arguments.listen,
            controller_port: arguments.controller_port,
            data_port: arguments.data_port,
            shards: arguments.shards,
            cache: arguments.cache,
            journal: arguments.journal,
            journal_file: arguments.journal_file,
            single_port: arguments.single_port,
            pin: !arguments.no_pin,
            device: arguments.device,
            memory: arguments.memory,
            admin: arguments.admin.unwrap_or_default(),
            limits,
        }
    }
}

/// Runs the server until it is told to stop.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    thalweg_server::serve(arguments.into())?;
    Ok(())
}
