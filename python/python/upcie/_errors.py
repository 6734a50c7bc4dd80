"""The exceptions of this package, and how the native part makes them."""

from __future__ import annotations


class Error(Exception):
    """An error of a controller, a namespace or a buffer.

    ``device`` and ``operation`` name what failed, ``status`` is the controller's status field where it completed the command
    with an error, and ``retryable`` tells whether the same call may succeed later.
    """

    device: str | None = None
    operation: str | None = None
    status: int | None = None
    retryable: bool = False


class ArgumentError(Error, ValueError):
    """An argument is outside of what the call or the device takes."""


class NotFoundError(Error, LookupError):
    """The device does not exist."""


class BusyError(Error):
    """Another program, or another call, uses the device or the buffer."""


class UnsupportedError(Error):
    """The device, the kernel or this build lacks the feature."""


class TimeoutError(Error, TimeoutError):  # noqa: A001
    """The controller did not answer in time; the command may still be executed."""


class GoneError(Error, ConnectionError):
    """The device was removed, or its server closed the connection."""


class FailedError(Error):
    """The controller failed or was reset."""


class ProtocolError(Error):
    """The controller broke its protocol."""


class StatusError(Error):
    """The controller completed a command with an error: ``status``."""


class RefusedError(Error, ValueError):
    """A command does not fit the namespace, the buffer or the controller; it was not sent."""


class OutOfMemoryError(Error, MemoryError):
    """Too little memory of the requested kind."""


class SystemCallError(Error, OSError):
    """A system call failed."""


class ClosedError(Error, ValueError):
    """The controller was closed, or the buffer freed."""


_KINDS = {
    "argument": ArgumentError,
    "not found": NotFoundError,
    "busy": BusyError,
    "unsupported": UnsupportedError,
    "timeout": TimeoutError,
    "gone": GoneError,
    "failed": FailedError,
    "protocol": ProtocolError,
    "status": StatusError,
    "refused": RefusedError,
    "memory": OutOfMemoryError,
    "system": SystemCallError,
    "closed": ClosedError,
}


def make(
    kind: str, text: str, device: str | None, operation: str | None, status: int | None, retryable: bool
) -> Error:
    """Makes an exception for the native part."""
    error = _KINDS.get(kind, Error)(text)
    error.device, error.operation, error.status, error.retryable = device, operation, status, retryable
    return error
