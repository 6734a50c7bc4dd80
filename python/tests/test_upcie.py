"""What a Python program relies on, and what it may do wrong: each mistake raises one exception, and nothing crashes."""

import gc
import os
import signal
import subprocess
import sys
import threading
import unittest

import numpy as np

import upcie

SMALL = "emu:size=16M"


class Transfers(unittest.TestCase):
    def setUp(self):
        self.controller = upcie.Controller(SMALL)
        self.addCleanup(self.controller.close)
        self.namespace = self.controller.namespace()
        self.block = self.namespace.block_size

    def test_properties(self):
        self.assertEqual(self.controller.namespace_ids(), [1])
        self.assertEqual([namespace.nsid for namespace in self.controller.namespaces()], [1])
        self.assertEqual(self.namespace.blocks * self.block, 16 << 20)
        self.assertTrue(self.controller.model and self.controller.serial and self.controller.firmware)
        self.assertIn("emu", repr(self.controller))
        self.assertIn("blocks", repr(self.namespace))

    def test_views_are_the_memory(self):
        buffer = self.controller.alloc(2 * self.block)
        array = buffer.array(np.uint32)
        array[:] = np.arange(len(array))
        self.namespace.write(8, buffer)
        array[:] = 0
        self.namespace.read_into(8, buffer)
        np.testing.assert_array_equal(array, np.arange(len(array)))
        view = memoryview(buffer)
        view[0] = 77
        self.assertEqual(array[0] & 0xFF, 77)
        self.assertEqual(buffer.tobytes(), bytes(view))

    def test_any_bytes_can_be_written(self):
        rows = np.arange(2 * self.block // 8, dtype=np.float64).reshape(2, -1)
        for data in (bytes(range(256)) * (self.block // 256), bytearray(self.block), memoryview(b"x" * self.block), rows):
            self.namespace.write(0, data)
            size = memoryview(data).nbytes
            self.assertEqual(self.namespace.read(0, size // self.block).tobytes(), bytes(memoryview(data).cast("B")))

    def test_batches(self):
        pieces = [(slba, bytes([slba % 251]) * self.block) for slba in range(300)]
        self.namespace.write_many(pieces)
        places = [(slba, 2) for slba in range(0, 300, 2)]
        for (slba, _), buffer in zip(places, self.namespace.read_many(places)):
            wanted = bytes([slba % 251]) * self.block + bytes([(slba + 1) % 251]) * self.block
            self.assertEqual(buffer.tobytes(), wanted)
        self.assertEqual(self.namespace.read_many([]), [])

    def test_other_commands(self):
        self.namespace.write(0, b"x" * self.block)
        self.namespace.flush()
        self.namespace.write_zeroes(0, 1)
        self.assertEqual(self.namespace.read(0).tobytes(), bytes(self.block))
        self.namespace.deallocate(0, 8)
        self.controller.reset()
        self.assertEqual(len(self.namespace.read_many([(0, 1)])), 1)

    def test_perf(self):
        for rw in ("read", "randread", "randwrite", "write"):
            result = upcie.perf(self.namespace, rw=rw, seconds=0.05, depth=4, overwrite="write" in rw)
            self.assertGreater(result.ios, 0)
            self.assertEqual((result.errors, result.bytes), (0, result.ios * 4096))
            self.assertEqual(sum(count for _, _, count in result.histogram()), result.ios)
            self.assertLessEqual(result.shortest, result.percentile(50))
            self.assertLessEqual(result.percentile(99), result.longest)
            self.assertGreater(result.iops * result.seconds, 0)
            self.assertIn("IOPS", repr(result))


class Mistakes(unittest.TestCase):
    def setUp(self):
        self.controller = upcie.Controller(SMALL)
        self.addCleanup(self.controller.close)
        self.namespace = self.controller.namespace()

    def test_errors_have_their_parts(self):
        with self.assertRaises(upcie.RefusedError) as raised:
            self.namespace.read(self.namespace.blocks)
        error = raised.exception
        self.assertEqual(error.device, self.controller.name)
        self.assertIn("Read", error.operation)
        self.assertEqual((error.status, error.retryable), (None, False))
        self.assertIsInstance(error, upcie.Error)
        self.assertIsInstance(error, ValueError)
        with self.assertRaises(upcie.Error):
            self.controller.namespace(9)
        with self.assertRaises(upcie.Error):
            upcie.Controller("vfio-user:/nowhere/at/all")
        with self.assertRaises(upcie.ArgumentError):
            upcie.Controller("emu:colour=red")

    def test_wrong_types_and_values_raise(self):
        good = self.controller.alloc(512)
        wrong = [None, -1, 1.5, "1", b"1", [], {}, object(), 1 << 64, 1 << 200, good, self]
        calls = {
            upcie.Controller: 1,
            self.controller.namespace: 1,
            self.controller.alloc: 1,
            self.namespace.read: 2,
            self.namespace.read_into: 2,
            self.namespace.write: 2,
            self.namespace.read_many: 1,
            self.namespace.write_many: 1,
            self.namespace.write_zeroes: 2,
            self.namespace.deallocate: 2,
            good.fill: 1,
            good.array: 1,
            upcie.perf: 1,
        }
        expected = (upcie.Error, TypeError, ValueError, OverflowError, BufferError)
        for call, count in calls.items():
            for value in wrong:
                if (call == good.array and value is None) or (value == [] and "_many" in repr(call)):
                    continue
                with self.subTest(call=call, value=value), self.assertRaises(expected):
                    call(*[value] * count)
            with self.subTest(call=call), self.assertRaises(TypeError):
                call(*[0] * 7)
        for places in ([(0, 0)], [(0,)], [(0, 1, 2)], [("a", 1)], [(0, 1 << 63)], [(1 << 63, 1)], "ab"):
            with self.subTest(places=places), self.assertRaises(expected):
                self.namespace.read_many(places)
        for pieces in ([(0, b"")], [(0, b"x")], [(0, None)], [(0, np.zeros((4, 512), "u1")[:, ::2])], [(0, good), (1, good)]):
            with self.subTest(pieces=pieces), self.assertRaises(expected):
                self.namespace.write_many(pieces)
        for keywords in (
            {"rw": "trim"}, {"rw": "write"}, {"rw": 1}, {"block_size": 0}, {"block_size": 1000}, {"block_size": 1 << 40},
            {"depth": 0}, {"depth": 1 << 20}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": float("nan")},
            {"seconds": float("inf")}, {"seed": -1}, {"colour": "red"},
        ):
            with self.subTest(keywords=keywords), self.assertRaises(expected):
                upcie.perf(self.namespace, **keywords)
        for percent in (-1, 101, float("nan"), "50"):
            with self.subTest(percent=percent), self.assertRaises(expected):
                upcie.perf(self.namespace, seconds=0.01, depth=1).percentile(percent)
        for timeout in (0.0, -1.0, float("nan"), 1e300, "1"):
            with self.subTest(timeout=timeout), self.assertRaises(expected):
                upcie.Controller(SMALL, timeout=timeout)
        for kind in (upcie.Buffer, upcie.Namespace, upcie.PerfResult):
            with self.subTest(kind=kind), self.assertRaises(TypeError):
                kind()
        # Everything still works, and the buffer came back from each call.
        good.fill(3)
        self.namespace.write(0, good)
        self.assertEqual(self.namespace.read(0).tobytes(), bytes([3]) * 512)

    def test_failed_batches_give_their_buffers_back(self):
        good, bad = self.controller.alloc(512), self.controller.alloc(512)
        with self.assertRaises(upcie.RefusedError):
            self.namespace.write_many([(0, good), (self.namespace.blocks, bad)])
        for buffer in (good, bad):
            buffer.fill(1)
        self.namespace.write_many([(0, good), (1, bad)])

    def test_a_view_keeps_its_memory(self):
        buffer = self.controller.alloc(4096)
        array = buffer.array()
        with self.assertRaises(BufferError):
            buffer.free()
        del buffer
        self.controller.close()
        gc.collect()
        array[:] = 5
        self.assertEqual(int(array.sum()), 5 * 4096)

    def test_a_freed_buffer_raises(self):
        with self.controller.alloc(512) as buffer:
            view = memoryview(buffer)
            view.release()
        self.assertTrue(buffer.freed)
        buffer.free()
        for call in (
            buffer.tobytes, buffer.array, lambda: memoryview(buffer), lambda: buffer.fill(1),
            lambda: self.namespace.write(0, buffer), lambda: self.namespace.read_into(0, buffer),
            lambda: self.namespace.write_many([(0, buffer)]),
        ):
            with self.assertRaises((upcie.ClosedError, BufferError)):
                call()
        self.assertEqual(len(buffer), 512)

    def test_use_after_close_raises(self):
        buffer = self.namespace.read(0)
        self.controller.close()
        self.controller.close()
        self.assertTrue(self.controller.closed)
        self.assertIn("closed", repr(self.controller))
        for call in (
            lambda: self.controller.model, self.controller.namespace, self.controller.namespaces, self.controller.reset,
            lambda: self.controller.alloc(512), lambda: self.namespace.read(0), lambda: self.namespace.write(0, buffer),
            lambda: self.namespace.read_many([(0, 1)]), self.namespace.flush, lambda: upcie.perf(self.namespace),
        ):
            with self.assertRaises(upcie.ClosedError):
                call()
        self.assertEqual(len(buffer.tobytes()), 512)

    def test_a_controllers_statuses_are_typed(self):
        with self.assertRaises(upcie.StatusError) as raised:
            # The controller checks ranges of Dataset Management itself.
            self.namespace.deallocate(self.namespace.blocks, 8)
        self.assertGreater(raised.exception.status, 0)


class Threads(unittest.TestCase):
    def test_threads_share_everything(self):
        with upcie.Controller(SMALL) as controller:
            namespace = controller.namespace()
            failures = []

            def work(number):
                try:
                    for version in range(20):
                        data = bytes([number * 16 + version]) * 4096
                        namespace.write(number * 8, data)
                        namespace.write_many([(number * 8 + 1024 + index, data[:512]) for index in range(8)])
                        assert namespace.read(number * 8, 8).tobytes() == data
                        assert namespace.read_many([(number * 8 + 1024, 8)])[0].tobytes() == data
                except BaseException as error:  # noqa: BLE001
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])

    def test_the_lock_is_released_while_waiting(self):
        with upcie.Controller(SMALL + ",latency=300ms") as controller:
            namespace = controller.namespace()
            reading, seen = threading.Event(), []
            def read():
                reading.set()
                namespace.read(0)
                seen.append("read")
            thread = threading.Thread(target=read)
            thread.start()
            reading.wait()
            seen.append("main")
            thread.join()
            self.assertEqual(seen, ["main", "read"])

    def test_a_buffer_in_use_and_a_close_meanwhile(self):
        controller = upcie.Controller(SMALL + ",latency=300ms")
        namespace, buffer = controller.namespace(), controller.alloc(512)
        results = []
        thread = threading.Thread(target=lambda: results.append(namespace.read_into(0, buffer)))
        thread.start()
        while "in use" not in repr(buffer):
            self.assertTrue(thread.is_alive())
        with self.assertRaises(upcie.BusyError):
            buffer.fill(1)
        with self.assertRaises(upcie.BusyError):
            buffer.free()
        with self.assertRaises(upcie.BusyError):
            namespace.write(0, buffer)
        view = memoryview(buffer)
        controller.close()
        with self.assertRaises(upcie.ClosedError):
            namespace.read(0)
        thread.join()
        # The call in progress has ended as if nothing had happened.
        self.assertEqual((results, len(view)), ([None], 512))

    def test_a_signal_interrupts_perf_and_its_handler_may_close(self):
        with upcie.Controller(SMALL) as controller:
            namespace = controller.namespace()

            def handler(number, frame):
                controller.close()
                raise KeyboardInterrupt

            before = signal.signal(signal.SIGUSR1, handler)
            self.addCleanup(signal.signal, signal.SIGUSR1, before)
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with self.assertRaises(KeyboardInterrupt):
                upcie.perf(namespace, seconds=3600.0)
            timer.join()
            self.assertTrue(controller.closed)

    def test_a_forked_child_is_refused(self):
        code = (
            "import os, upcie\n"
            "controller = upcie.Controller('emu:size=1M')\n"
            "namespace = controller.namespace()\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    try:\n"
            "        namespace.read(0)\n"
            "    except upcie.Error:\n"
            "        os._exit(7)\n"
            "    os._exit(1)\n"
            "status = os.waitpid(child, 0)[1]\n"
            "namespace.read(0)\n"
            "raise SystemExit(os.waitstatus_to_exitcode(status))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], timeout=120)
        self.assertEqual(done.returncode, 7)

    def test_an_exit_with_everything_open(self):
        code = (
            "import threading, upcie\n"
            "controller = upcie.Controller('emu:size=1M')\n"
            "namespace = controller.namespace()\n"
            "view = namespace.read(0).array()\n"
            "daemon = threading.Thread(target=upcie.perf, args=(namespace,), kwargs={'seconds': 3600.0}, daemon=True)\n"
            "daemon.start()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], timeout=120)
        self.assertEqual(done.returncode, 0)


class Stubs(unittest.TestCase):
    def test_stubs_name_all_that_exists(self):
        import ast
        import pathlib

        path = pathlib.Path(upcie.__file__).with_name("_native.pyi")
        tree = ast.parse(path.read_text())
        stubs = {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        from upcie import _native

        public = {name for name in dir(_native) if not name.startswith("_")}
        self.assertEqual(set(stubs), public)
        for name, node in stubs.items():
            if isinstance(node, ast.ClassDef):
                told = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                real = {item for item in vars(getattr(_native, name)) if not item.startswith("_")}
                self.assertEqual({item for item in told if not item.startswith("_")}, real, name)


if __name__ == "__main__":
    unittest.main()
