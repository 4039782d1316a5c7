"""Refuses connections but to ``STRANGER_SERVER``, and writes down each attempt; a ``.pth`` file imports it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo


def _check(address: Any) -> None:
    where = f"{address[0]}:{address[1]}"
    if where != os.environ.get("STRANGER_SERVER"):
        with Path(os.environ["STRANGER_ATTEMPTS"]).open("a") as log:
            log.write(f"{where}\n")
        raise OSError(f"The network is off, and {where} was asked for.")


def connect(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _check(address)
    _connect(self, address)


def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    _check((host, port))
    return _getaddrinfo(host, port, *arguments, **options)


socket.socket.connect = connect  # type: ignore[method-assign,assignment]
socket.getaddrinfo = getaddrinfo
