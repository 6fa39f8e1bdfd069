"""The port people connect to, taken before anything slow begins."""

from __future__ import annotations

import errno
import socket

from strata.platform.errors import ConfigurationError
from strata.platform.settings import HttpSettings


class PortBusyError(ConfigurationError):
    code = "port-busy"
    title = "Port in use"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Port {port} on {host} is in use: stop what uses it, or choose another with --port (0: any free one)."
        )


def reserve(http: HttpSettings) -> socket.socket:
    """A socket bound to the address and not listening yet: nobody else gets the port, and nobody connects too early."""
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reserved.bind((http.host, http.port))
    except OSError as error:
        reserved.close()
        if error.errno == errno.EADDRINUSE:
            raise PortBusyError(http.host, http.port) from None
        message = f"Port {http.port} on {http.host} cannot be opened ({error.strerror}): choose another with --port."
        raise ConfigurationError(message) from None
    return reserved


def port_of(reserved: socket.socket) -> int:
    port: int = reserved.getsockname()[1]
    return port
