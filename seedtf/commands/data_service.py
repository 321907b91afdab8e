"""``seedtf data_service``: a dispatcher or a worker of a tf.data service, until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any

from seedtf.commands.arguments import parse_config
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.flags import check_ranges, option
from seedtf.errors import UserError

__all__ = ["DataServiceConfig", "run"]

ROLES = ("dispatcher", "worker")


@dataclass(frozen=True)
class DataServiceConfig:
    """What to be and where."""

    role: str = option(
        "", "What to be: dispatcher, of which there is one, or worker.", choices=ROLES
    )
    port: int = option(0, "Port to listen at, 1 to 65535; 0 takes a free one.", low=0, high=65535)
    dispatcher: str = option("", "For a worker: the dispatcher's host:port.")
    address: str = option(
        "", "For a worker: its own host or host:port as training reaches it; default found out."
    )

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        check_ranges(self)
        if (self.role == "worker") != bool(self.dispatcher):
            verb = "missing; pass" if self.role == "worker" else "only for a worker, which takes"
            raise UserError(f"--dispatcher: {verb} the host:port of the dispatcher")


def run(arguments: list[str]) -> int:
    """Serves until SIGTERM or SIGINT, then ends the process with 0."""
    config = parse_config(DataServiceConfig, "data_service", arguments, words=("role",))
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    import_tensorflow()
    import tensorflow as tf

    tf.config.set_visible_devices(
        [], "GPU"
    )  # what prepares batches must not take training's memory
    server = _start(tf, config)
    while server and not stopped.wait(1):
        pass
    # a server that is taken down in order waits for its clients, for minutes; it keeps nothing
    os._exit(0)


def _start(tf: Any, config: DataServiceConfig) -> Any:
    try:
        return _dispatcher(tf, config) if config.role == "dispatcher" else _worker(tf, config)
    except tf.errors.OpError as error:
        cause = error.message.strip().splitlines()[0]
        raise UserError(f"--port={config.port}: cannot serve ({cause}); pass another") from None


def _dispatcher(tf: Any, config: DataServiceConfig) -> Any:
    service = tf.data.experimental.service
    server = service.DispatchServer(service.DispatcherConfig(port=config.port))
    port = server.target.rsplit(":", 1)[1]
    host = socket.gethostname()
    print(f"dispatcher on port {port}; start workers with --dispatcher={host}:{port}", flush=True)
    print(f"and training with --data_service={host}:{port}", flush=True)
    return server


def _worker(tf: Any, config: DataServiceConfig) -> Any:
    service = tf.data.experimental.service
    dispatcher = config.dispatcher.removeprefix("grpc://")
    address = config.address or _own_host(dispatcher)
    server = service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=dispatcher,
            port=config.port,
            worker_address=address if ":" in address else f"{address}:%port%",
        )
    )
    print(f"worker for {dispatcher}, reached at {address}", flush=True)
    return server


def _own_host(dispatcher: str) -> str:
    """This machine's address on the way to the dispatcher; nothing is sent."""
    host, _, port = dispatcher.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            return probe.getsockname()[0]
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"--dispatcher={dispatcher}: {error}; pass the host:port that the dispatcher printed"
        ) from None
