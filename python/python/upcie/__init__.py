"""upcie: a user-space NVMe driver.

>>> import upcie
>>> with upcie.Controller("emu:size=1M") as controller:
...     namespace = controller.namespace(1)
...     namespace.write(0, b"hello".ljust(512, b"\\0"))
...     namespace.read(0).tobytes()[:5]
b'hello'
"""

from ._errors import (
    ArgumentError,
    BusyError,
    ClosedError,
    Error,
    FailedError,
    GoneError,
    NotFoundError,
    OutOfMemoryError,
    ProtocolError,
    RefusedError,
    StatusError,
    SystemCallError,
    TimeoutError,  # noqa: A004
    UnsupportedError,
)
from ._native import (
    Buffer,
    Controller,
    KeyValue,
    Namespace,
    PerfResult,
    Placement,
    PlacementHandle,
    Protect,
    Registrant,
    ReservationReport,
    Reservations,
    Zone,
    Zones,
    perf,
)

__all__ = [
    "ArgumentError",
    "Buffer",
    "BusyError",
    "ClosedError",
    "Controller",
    "Error",
    "FailedError",
    "GoneError",
    "KeyValue",
    "Namespace",
    "NotFoundError",
    "OutOfMemoryError",
    "PerfResult",
    "Placement",
    "PlacementHandle",
    "Protect",
    "ProtocolError",
    "RefusedError",
    "Registrant",
    "ReservationReport",
    "Reservations",
    "StatusError",
    "SystemCallError",
    "TimeoutError",
    "UnsupportedError",
    "Zone",
    "Zones",
    "perf",
]
