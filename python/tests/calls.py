"""A table of every call of the package: arguments that suit, and for each of them some that don't."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import upcie

MISTAKES = (upcie.Error, TypeError, ValueError, OverflowError, BufferError)

# Values that don't suit, by what is asked for.
OPTIONAL_NUMBER = [-1, 1.5, "1", b"1", [], {}, object(), 1 << 64, 1 << 200]
NUMBER = [None, *OPTIONAL_NUMBER]
SECONDS = [None, "1", b"1", [], object(), 0.0, -1.0, float("nan"), float("inf"), 1e300, 10**400]
OPTIONAL_FLAG = [0, 1, "yes", [], object()]
FLAG = [None, *OPTIONAL_FLAG]
TEXT = [None, 1, 1.5, b"x", [], object(), "\ud800", ""]
OPTIONAL_KEY = [1, 1.5, [], {}, object(), bytearray(b"k"), "", b"", "seventeen bytes !", b"x" * 17, "\ud800"]
KEY = [None, *OPTIONAL_KEY]
STRIDED = np.zeros((4, 512), "u1")[:, ::2]
OPTIONAL_VALUE = [1, 1.5, "x" * 512, [], {}, object(), STRIDED, np.array([object()])]
VALUE = [None, *OPTIONAL_VALUE]
BLOCKS = [*VALUE, b"", b"x"]
OPTIONAL_BUFFER = [1, "x", b"x" * 512, bytearray(512), np.zeros(512, "u1"), [], object()]
BUFFER = [None, *OPTIONAL_BUFFER]
PROTECT = [7, "8", b"8", [], object()]
LIST = [None, -1, 1.5, "ab", b"1", {}, object(), [None], [0], ["ab"]]
PLACES = [*LIST, [(0, 0)], [(0,)], [(0, 1, 2)], [("a", 1)], [(-1, 1)], [(0, 1 << 63)], [(1 << 63, 1)]]
PIECES = [*LIST, [(0,)], [(0, b"")], [(0, b"x")], [(0, None)], [(0, "x" * 512)], [(0, STRIDED)], [(1 << 64, b"")]]
RANGES = [*LIST, [(0, 0)], [(0,)], [(0, 1, 2)], [("a", 1)], [(-1, 1)], [(0, (1 << 16) + 1)], [(0, 1 << 32)]]
IDENTIFIERS = [None, -1, 1.5, "ab", {}, object(), [], [None], [-1], [1 << 16], [0x7FFF]]

ADDRESSES = (
    "emu:size=16M",
    "emu:size=1M,zoned=true,zone-size=64K,zde=64,zrwa=8K,read-only-zones=1",
    "emu:size=1M,kv=true",
    "emu:size=4M,fdp=true,fdp-handles=4,fdp-groups=2,fdp-unit=64K",
)


class Call(NamedTuple):
    function: Callable[..., Any]
    # By name: a value that suits, and those that don't.
    parameters: dict[str, tuple[Any, list[Any]]]

    def suitable(self):
        """Returns the arguments that suit."""
        return {name: suitable for name, (suitable, _) in self.parameters.items()}

    def ready(self):
        """Returns the call with arguments that suit, as a callable that runs no code of Python's own."""
        return partial(self.function, **self.suitable())


class Devices:
    """Open controllers with a namespace of each kind, and the table of all calls. `name` is theirs alone."""

    def __init__(self, name, more=""):
        addresses = [f"{address},serial={name}-{number}{more}" for number, address in enumerate(ADDRESSES)]
        self.controllers = [upcie.Controller(address) for address in addresses]
        self.plain, self.zoned, self.keyed, self.placed = self.controllers
        self.spare = upcie.Controller(f"emu:size=1M,serial={name}-spare{more}")
        self.another = f"emu:size=1M,serial={name}-another{more}"
        self.namespace, self.buffer = self.plain.namespace(), self.plain.alloc(512)
        self.calls = self.table()

    def close(self):
        for controller in (*self.controllers, self.spare):
            controller.close()

    def in_use(self):
        """Returns the bytes of DMA memory in use for each controller of a namespace."""
        return [controller._in_use for controller in self.controllers]

    def table(self):
        """Returns each call by its name, in an order in which all can be made once."""
        plain, namespace, buffer = self.plain, self.namespace, self.buffer
        zones, keys = self.zoned.namespace().zones(), self.keyed.namespace().keys()
        placement, reservations = self.placed.namespace().placement(), namespace.reservations()
        result = upcie.perf(namespace, seconds=0.01, depth=1)
        slba, zone = (0, NUMBER), [*OPTIONAL_NUMBER, 1]
        protect, tag = (None, PROTECT), (None, [*OPTIONAL_NUMBER, 1 << 16])
        calls = {
            "Controller": (
                upcie.Controller,
                {
                    "address": (self.another, [*TEXT, "emu:colour=red", "vfio-user:/nowhere/at/all"]),
                    "timeout": (30.0, SECONDS),
                },
            ),
            "Controller.namespace_ids": (plain.namespace_ids, {}),
            "Controller.namespace": (plain.namespace, {"nsid": (1, [*NUMBER, 9, 1 << 32])}),
            "Controller.namespaces": (plain.namespaces, {}),
            "Controller.alloc": (plain.alloc, {"len": (512, [*NUMBER, 0, 1 << 63])}),
            "Controller.set_host_id": (
                plain.set_host_id,
                {"identifier": (7, [None, -1, 1.5, "7", [], {}, object(), 1 << 64, bytes(8), bytearray(16)])},
            ),
            "Controller.reset": (plain.reset, {}),
            "Controller.close": (self.spare.close, {}),
            "Namespace.zones": (self.zoned.namespace().zones, {}),
            "Namespace.keys": (self.keyed.namespace().keys, {}),
            "Namespace.reservations": (namespace.reservations, {}),
            "Namespace.placement": (self.placed.namespace().placement, {}),
            "Namespace.read": (
                namespace.read,
                {"slba": slba, "blocks": (1, [*NUMBER, 0, 1 << 63]), "protect": protect},
            ),
            "Namespace.read_into": (
                namespace.read_into,
                {"slba": slba, "buffer": (buffer, BUFFER), "metadata": (None, OPTIONAL_BUFFER), "protect": protect},
            ),
            "Namespace.write": (
                namespace.write,
                {
                    "slba": slba,
                    "data": (bytes(512), BLOCKS),
                    "metadata": (None, OPTIONAL_VALUE),
                    "protect": protect,
                    "placement": tag,
                },
            ),
            "Namespace.read_many": (namespace.read_many, {"places": ([(0, 1), (8, 2)], PLACES)}),
            "Namespace.write_many": (
                namespace.write_many,
                {"pieces": ([(0, bytes(512)), (8, bytes(1024))], PIECES), "placement": tag},
            ),
            "Namespace.flush": (namespace.flush, {}),
            "Namespace.write_zeroes": (namespace.write_zeroes, {"slba": slba, "blocks": (1, NUMBER)}),
            "Namespace.deallocate": (namespace.deallocate, {"slba": slba, "blocks": (8, [*NUMBER, 1 << 32])}),
            "Namespace.compare": (namespace.compare, {"slba": slba, "data": (bytes(512), BLOCKS)}),
            "Namespace.compare_and_write": (
                namespace.compare_and_write,
                {"slba": slba, "expected": (bytes(512), BLOCKS), "new": (bytes(512), BLOCKS)},
            ),
            "Namespace.verify": (namespace.verify, {"slba": slba, "blocks": (1, NUMBER), "protect": protect}),
            "Namespace.write_uncorrectable": (
                namespace.write_uncorrectable,
                {"slba": (100, NUMBER), "blocks": (1, NUMBER)},
            ),
            "Namespace.copy": (
                namespace.copy,
                {"ranges": ([(0, 2), (8, 1)], RANGES), "slba": (64, NUMBER), "placement": tag},
            ),
            "Zones.open_zone": (zones.open_zone, {"zone": (0, zone), "random_writes": (True, FLAG)}),
            "Zones.flush_random_writes": (zones.flush_random_writes, {"last": (15, [*NUMBER, 1 << 40])}),
            "Zones.append": (
                zones.append,
                {"zone": (128, [*NUMBER, 1, 1 << 40]), "data": (bytes(512), [*BLOCKS, bytes(511), bytes(1 << 20)])},
            ),
            "Zones.close_zone": (zones.close_zone, {"zone": (None, zone)}),
            "Zones.finish_zone": (zones.finish_zone, {"zone": (None, zone)}),
            "Zones.reset_zone": (zones.reset_zone, {"zone": (None, zone)}),
            "Zones.offline_zone": (zones.offline_zone, {"zone": (None, zone)}),
            "Zones.set_extension": (
                zones.set_extension,
                {"zone": (256, [*NUMBER, 1]), "data": (bytes(64), [*BLOCKS, bytes(63)])},
            ),
            "Zones.report": (zones.report, {"first": (0, [*NUMBER, 1 << 40]), "most": (1, OPTIONAL_NUMBER)}),
            "Zones.report_extended": (zones.report_extended, {"first": (0, NUMBER), "most": (1, OPTIONAL_NUMBER)}),
            "KeyValue.store": (
                keys.store,
                {
                    "key": ("k", KEY),
                    "value": (b"x", VALUE),
                    "must_exist": (False, FLAG),
                    "must_not_exist": (False, FLAG),
                },
            ),
            "KeyValue.retrieve": (keys.retrieve, {"key": ("k", KEY)}),
            "KeyValue.retrieve_into": (
                keys.retrieve_into,
                {"key": ("k", KEY), "buffer": (self.keyed.alloc(512), BUFFER)},
            ),
            "KeyValue.exists": (keys.exists, {"key": ("k", KEY)}),
            "KeyValue.list": (keys.list, {"start": (None, OPTIONAL_KEY), "most": (1, OPTIONAL_NUMBER)}),
            "KeyValue.flush": (keys.flush, {}),
            "KeyValue.delete": (keys.delete, {"key": ("k", KEY)}),
            "Reservations.register": (
                reservations.register,
                {"key": (0xABC, NUMBER), "persist": (None, OPTIONAL_FLAG)},
            ),
            "Reservations.replace": (reservations.replace, {"current": (0xABC, OPTIONAL_NUMBER), "new": (5, NUMBER)}),
            "Reservations.acquire": (
                reservations.acquire,
                {"key": (5, NUMBER), "kind": ("write-exclusive", [*TEXT, "shared"])},
            ),
            "Reservations.report": (reservations.report, {}),
            "Reservations.preempt": (
                reservations.preempt,
                {
                    "key": (5, NUMBER),
                    "preempted": (6, NUMBER),
                    "kind": ("write-exclusive", [*TEXT, "shared"]),
                    "abort": (False, FLAG),
                },
            ),
            "Reservations.release": (
                reservations.release,
                {"key": (5, NUMBER), "kind": ("write-exclusive", [*TEXT, "shared"])},
            ),
            "Reservations.clear": (reservations.clear, {"key": (5, NUMBER)}),
            "Reservations.unregister": (reservations.unregister, {"current": (None, OPTIONAL_NUMBER)}),
            "Placement.identifier": (
                placement.identifier,
                {"handle": (2, [*NUMBER, 1 << 16]), "group": (0, [*NUMBER, 2, 1 << 16])},
            ),
            "Placement.handles": (placement.handles, {}),
            "Placement.update": (placement.update, {"identifiers": ([placement.identifier(2)], IDENTIFIERS)}),
            "Protect": (
                upcie.Protect,
                {
                    "prinfo": (8, [*NUMBER, 16, 256]),
                    "app_tag": (0, [*NUMBER, 1 << 16]),
                    "app_tag_mask": (0xFFFF, [*NUMBER, 1 << 16]),
                    "ref_tag": (None, OPTIONAL_NUMBER),
                },
            ),
            "perf": (
                upcie.perf,
                {
                    "namespace": (namespace, [None, 1, "x", [], object(), buffer]),
                    "rw": ("randread", [*TEXT, "trim", "write"]),
                    "block_size": (4096, [*NUMBER, 0, 1000, 1 << 40]),
                    "depth": (1, [*NUMBER, 0, 1 << 16, 1 << 32]),
                    "seconds": (0.01, SECONDS),
                    "seed": (1, NUMBER),
                    "overwrite": (False, FLAG),
                },
            ),
            "PerfResult.percentile": (
                result.percentile,
                {"percent": (50.0, [None, "50", [], object(), -1, 101, float("nan")])},
            ),
            "PerfResult.histogram": (result.histogram, {}),
            "Buffer.fill": (buffer.fill, {"value": (1, [*NUMBER, 256])}),
            "Buffer.tobytes": (buffer.tobytes, {}),
            "Buffer.array": (buffer.array, {"dtype": (None, [-1, 1.5, "1", b"1", [], {}, object(), 1 << 64, "O"])}),
            "Buffer.free": (plain.alloc(512).free, {}),
        }
        return {name: Call(*call) for name, call in calls.items()}


def all_calls():
    """Returns the names of the package's functions, of its classes that can be called, and of their methods."""
    names = set()
    for name in upcie.__all__:
        item = getattr(upcie, name)
        if not isinstance(item, type):
            names.add(name)
        elif not issubclass(item, BaseException):
            # PyO3 gives a class a signature if it can be called.
            names |= {name} if item.__text_signature__ else set()
            methods = (method for method, value in vars(item).items() if callable(value))
            names |= {f"{name}.{method}" for method in methods if not method.startswith("_")}
    return names
