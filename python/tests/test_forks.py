"""Calls of a forked child, while another thread of its parent uses the controllers."""

import os
import signal
import threading
import traceback
import unittest

import upcie
from calls import Devices

# They use no device, or one of the child's own; and in a child `close` and `free` leave it to the parent.
ALLOWED = {
    "Buffer.free",
    "Controller",
    "Controller.close",
    "PerfResult.histogram",
    "PerfResult.percentile",
    "Placement.identifier",
    "Protect",
}


class Forks(unittest.TestCase):
    def setUp(self):
        self.devices = Devices("forks")
        self.addCleanup(self.devices.close)

    def in_child(self, work):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                # It ends a child that waits for ever.
                signal.alarm(60)
                work()
                code = 0
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                os._exit(code)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)

    def refuse(self, call):
        with self.assertRaises(upcie.Error) as raised:
            call()
        self.assertIn("the process that this one was forked from", str(raised.exception))
        # Before the driver was asked, and so before any lock.
        self.assertIn(raised.exception.operation, ("using the controller", "using a buffer"))

    def refuse_all(self):
        plain, buffer = self.devices.plain, self.devices.buffer
        for name, call in self.devices.calls.items():
            try:
                call.ready()() if name in ALLOWED else self.refuse(call.ready())
            except Exception as error:
                # The child does not report subtests.
                raise AssertionError(name) from error
        for get in (
            lambda: plain.closed, lambda: plain.model, lambda: plain.serial, lambda: plain.firmware,
            lambda: buffer.freed, lambda: memoryview(buffer),
        ):
            self.refuse(get)
        for item in (plain, buffer):
            self.assertIn("of another process", repr(item))

    def test_a_childs_calls_are_refused_and_wait_for_nothing(self):
        plain, namespace, buffer = self.devices.plain, self.devices.namespace, self.devices.buffer
        stop, mine = threading.Event(), plain.alloc(512)

        def work():
            # It takes the locks of both, most of the time without the interpreter's.
            while not stop.is_set():
                namespace.read_into(0, mine)
                plain.alloc(512)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(20):
                dropped, view = [plain.namespace(), plain.alloc(512)], memoryview(buffer)

                def child():
                    self.refuse_all()
                    view.release()
                    dropped.clear()

                self.in_child(child)
                view.release()
        finally:
            stop.set()
            thread.join()
        # All of it is still the parent's.
        self.assertFalse(plain.closed or self.devices.spare.closed or buffer.freed)
        buffer.free()
        self.assertEqual(len(namespace.read(0).tobytes()), 512)

    def test_a_child_opens_its_own(self):
        def child():
            with upcie.Controller("emu:size=1M,serial=child") as controller:
                namespace = controller.namespace()
                namespace.write(0, b"x" * 512)
                self.assertEqual(namespace.read(0).tobytes(), b"x" * 512)

        self.in_child(child)


if __name__ == "__main__":
    unittest.main()
