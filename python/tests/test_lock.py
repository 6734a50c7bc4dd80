"""No call holds the interpreter's lock while it waits: another thread runs meanwhile."""

import ctypes
import operator
import tempfile
import threading
import time
import unittest
from functools import partial

import upcie
from calls import Devices

# Admin commands take their time as well as others (`latency=`), so that another thread can run meanwhile.
PLAN = """
[[fault]]
kind = "delay"
time = "10ms"
queue = "admin"
"""

# They send no command.
NO_COMMANDS = {
    "Buffer.array",
    "Buffer.fill",
    "Buffer.free",
    "Buffer.tobytes",
    "Controller.alloc",
    "Namespace.keys",
    "Namespace.reservations",
    "Namespace.zones",
    "PerfResult.histogram",
    "PerfResult.percentile",
    "Placement.identifier",
    "Protect",
}

# A second time their commands are refused, or nothing is left to do: their first time is the only one.
ONCE = {
    "Controller.close",
    "KeyValue.delete",
    "Reservations.acquire",
    "Reservations.clear",
    "Reservations.preempt",
    "Reservations.register",
    "Reservations.release",
    "Reservations.replace",
    "Reservations.unregister",
    "Zones.flush_random_writes",
    "Zones.offline_zone",
    "Zones.open_zone",
    "Zones.set_extension",
}


class Lock(unittest.TestCase):
    def setUp(self):
        plan = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.addCleanup(plan.close)
        plan.write(PLAN)
        plan.flush()
        self.slow = f",latency=10ms,faults={plan.name}"
        self.ticks, self.stop = [], threading.Event()
        thread = threading.Thread(target=self.tick)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.stop.set)

    def tick(self):
        while not self.stop.is_set():
            self.ticks.append(None)
            time.sleep(0.0005)

    def is_released_in(self, call):
        """Tells whether the other thread runs during the call.

        The three calls run one after the other without an instruction of Python in between, at which the interpreter
        would let the other thread run: it does so behind each call that took long.
        """
        count = self.ticks.__len__
        before, _, after = map(operator.call, (count, call, count))
        return after > before

    def assert_released(self, make):
        # Once is enough: a call that holds the lock does so each time, and a busy system may leave the other thread
        # waiting.
        self.assertTrue(any(self.is_released_in(make()) for _ in range(20)), "the lock is held")

    def open(self, serial):
        """Returns a namespace, and its controller with a queue pair, which is deleted by commands at the end."""
        controller = upcie.Controller(f"emu:size=1M,serial={serial}{self.slow}")
        namespace = controller.namespace()
        namespace.read_many([(0, 1)])
        return [namespace, controller]

    def test_the_test_notices_a_lock_that_is_held(self):
        microseconds = 20_000
        held, released = ctypes.PyDLL(None).usleep, ctypes.CDLL(None).usleep
        self.assertFalse(any(self.is_released_in(partial(held, microseconds)) for _ in range(5)))
        self.assert_released(lambda: partial(released, microseconds))

    def test_calls_release_the_lock(self):
        devices = Devices("lock", self.slow)
        self.addCleanup(devices.close)
        self.assertLessEqual(NO_COMMANDS | ONCE, set(devices.calls))
        for name, call in devices.calls.items():
            if name not in NO_COMMANDS | ONCE:
                with self.subTest(call=name):
                    self.assert_released(call.ready)

    def test_ends_release_the_lock(self):
        opened = []
        self.addCleanup(opened.clear)

        def close():
            opened[:] = self.open("closed")
            return opened[1].close

        def drop():
            opened[:] = self.open("dropped")
            # The controller goes with the last object that refers to it.
            return opened.clear

        for end in (close, drop):
            with self.subTest(end=end.__name__):
                self.assert_released(end)


if __name__ == "__main__":
    unittest.main()
