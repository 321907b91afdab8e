"""``seedtf data_service``: runs a dispatcher or worker of a tf.data service until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any, NoReturn

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError, first_line
from seedtf.report import report_text

__all__ = ["DataServiceConfig", "run"]

POSITIONALS = ("role",)

ROLES = ("dispatcher", "worker")


@dataclass(frozen=True)
class DataServiceConfig(Flags):
    """The role and the addresses of one process of the service."""

    role: str = option(
        "",
        "Role of the process: dispatcher (one per service) or worker (any number).",
        choices=ROLES,
    )
    port: int = option(0, "Port to listen on, 1 to 65535, or 0 for a free one.", low=0, high=65535)
    dispatcher: str = option("", "For a worker: host:port of the dispatcher.")
    address: str = option(
        "",
        "For a worker: the host or host:port at which the training processes can reach the worker. By "
        "default, the address of this machine in the network of the dispatcher.",
    )

    def check_together(self) -> None:
        """Raises UserError if a worker has no ``--dispatcher``, or if a dispatcher has one."""
        super().check_together()
        if (self.role == "worker") != bool(self.dispatcher):
            if self.role == "worker":
                raise UserError("--dispatcher: missing; pass the host:port of the dispatcher")
            raise UserError("--dispatcher: is only for the role worker; leave it out")


def run(arguments: list[str]) -> NoReturn:
    """Serves until SIGTERM or SIGINT, then ends the process with exit code 0; never returns."""
    config = parse_config(DataServiceConfig, "data_service", arguments, POSITIONALS)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    import_tensorflow()
    import tensorflow as tf

    # This process only prepares batches, so it must not take GPU memory from the training.
    tf.config.set_visible_devices([], "GPU")
    # TensorFlow stops a server as soon as its object is deleted, so a variable must hold it.
    _server = _start(tf, config)
    while not stopped.wait(1):
        pass
    # A regular exit would wait minutes for the clients, and the server has nothing to save.
    os._exit(0)


def _start(tf: Any, config: DataServiceConfig) -> Any:
    try:
        if config.role == "dispatcher":
            return _start_dispatcher(tf, config)
        return _start_worker(tf, config)
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        cause = first_line(error)
        if "start gRPC server" in cause:  # RuntimeError: the server cannot listen on this port
            message = f"--port={config.port}: cannot serve ({cause}); pass another port"
        elif config.dispatcher:
            given = f"--dispatcher={config.dispatcher}"
            remedy = "pass the host:port that the dispatcher printed"
            message = f"{given}: the worker cannot start ({cause}); {remedy}"
        else:
            message = f"the dispatcher cannot start ({cause})"
        raise UserError(message) from None


def _start_dispatcher(tf: Any, config: DataServiceConfig) -> Any:
    service = tf.data.experimental.service
    server = service.DispatchServer(service.DispatcherConfig(port=config.port))
    port = server.target.rsplit(":", 1)[1]
    host = socket.gethostname()
    report_text(f"dispatcher on port {port}; start workers with --dispatcher={host}:{port}")
    report_text(f"and training with --data_service={host}:{port}")
    return server


def _start_worker(tf: Any, config: DataServiceConfig) -> Any:
    service = tf.data.experimental.service
    dispatcher = config.dispatcher.removeprefix("grpc://")
    address = config.address or _find_own_address(dispatcher)
    server = service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=dispatcher,
            port=config.port,
            worker_address=address if ":" in address else f"{address}:%port%",
        )
    )
    report_text(f"worker for {dispatcher}, reached at {address}")
    return server


def _find_own_address(dispatcher: str) -> str:
    """This machine's address in the network of the dispatcher.

    Connecting a datagram socket to the dispatcher chooses the address without sending a packet.
    """
    host, _, port = dispatcher.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            return probe.getsockname()[0]
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"--dispatcher={dispatcher}: {error}; pass the host:port that the dispatcher printed"
        ) from None
