"""What a Python program relies on, and what it may do wrong: each mistake raises one exception, and nothing crashes."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
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

    def test_optional_commands(self):
        namespace, block = self.namespace, self.block
        data = bytes(range(256)) * (block // 256)
        namespace.write(0, data * 4)
        self.assertTrue(namespace.compare(0, data * 4))
        self.assertFalse(namespace.compare(1, data[::-1]))
        namespace.copy([(2, 2), (0, 1)], 64)
        self.assertEqual(namespace.read(64, 3).tobytes(), data * 3)
        namespace.verify(0, 8)
        namespace.write_uncorrectable(65)
        for call in (lambda: namespace.read(65), lambda: namespace.verify(64, 3)):
            with self.assertRaises(upcie.StatusError) as raised:
                call()
            self.assertEqual(raised.exception.status & 0x7FF, 0x281)
        free, mine = self.controller.alloc(block), bytes([9]) * block
        self.assertTrue(namespace.compare_and_write(128, free, mine))
        self.assertFalse(namespace.compare_and_write(128, free, mine))
        self.assertEqual(namespace.read(128).tobytes(), mine)
        # The buffer came back, and can't be both.
        free.fill(1)
        with self.assertRaises(upcie.BusyError):
            namespace.compare_and_write(128, free, free)
        free.fill(2)

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

    def test_failed_batches_give_their_buffers_back(self):
        good, bad = self.controller.alloc(512), self.controller.alloc(512)
        with self.assertRaises(upcie.RefusedError):
            self.namespace.write_many([(0, good), (self.namespace.blocks, bad)])
        for buffer in (good, bad):
            buffer.fill(1)
        self.namespace.write_many([(0, good), (1, bad)])

    def test_batches_and_measurements_heed_the_timeout(self):
        plan = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.addCleanup(plan.close)
        plan.write('[[fault]]\nkind = "drop"\nopcode = "read"\ncount = 1\n')
        plan.flush()
        for call in (lambda namespace: namespace.read_many([(0, 1)]), lambda namespace: upcie.perf(namespace, seconds=0.05, depth=1)):
            with upcie.Controller(f"emu:size=1M,serial=timeout,faults={plan.name}", timeout=3.0) as controller:
                namespace = controller.namespace()
                with self.assertRaises(upcie.TimeoutError) as raised:
                    call(namespace)
                self.assertIn("no completion within 3s", str(raised.exception))
                # The fault strikes once: the controller goes on.
                call(namespace)

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


if __name__ == "__main__":
    # The tests of all files in this folder; `-k NAME` picks some.
    folder = os.path.dirname(os.path.abspath(__file__))
    unittest.main(module=None, argv=[sys.argv[0], "discover", "-s", folder, *sys.argv[1:]])
