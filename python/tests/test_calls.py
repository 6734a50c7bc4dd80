"""What all calls have in common, by their table: wrong types and shapes raise, and leave no memory behind."""

import inspect
import unittest

import upcie
from calls import MISTAKES, Devices, all_calls


class Calls(unittest.TestCase):
    def setUp(self):
        self.devices = Devices("calls")
        self.addCleanup(self.devices.close)
        self.calls = self.devices.calls
        for name, call in self.calls.items():
            with self.subTest(call=name):
                self.make(call.ready())

    def make(self, call):
        """Makes a call with arguments that suit: it ends well, or the controller itself says no."""
        try:
            call()
        except upcie.StatusError:
            pass

    def refuse(self, function, *arguments, **keywords):
        """Makes a call that raises. It leaves the memory in use as it was."""
        before = self.devices.in_use()
        try:
            function(*arguments, **keywords)
        except MISTAKES:
            pass
        else:
            self.fail("it raises nothing")
        self.assertEqual(self.devices.in_use(), before)

    def test_the_table_has_every_call_and_every_parameter(self):
        self.assertEqual(set(self.calls), all_calls())
        for name, call in self.calls.items():
            with self.subTest(call=name):
                self.assertEqual(list(call.parameters), list(inspect.signature(call.function).parameters))

    def test_wrong_types_and_shapes_raise(self):
        for name, call in self.calls.items():
            for parameter, (_, mistakes) in call.parameters.items():
                for value in mistakes:
                    with self.subTest(call=name, parameter=parameter, value=value):
                        self.refuse(call.function, **call.suitable() | {parameter: value})
        # Everything still works, and the buffer came back from each call.
        namespace, buffer = self.devices.namespace, self.devices.buffer
        buffer.fill(3)
        namespace.write(0, buffer)
        self.assertEqual(namespace.read(0).tobytes(), bytes([3]) * 512)
        with self.assertRaises(upcie.BusyError):
            namespace.write_many([(0, buffer), (1, buffer)])
        namespace.write_many([(0, buffer)])

    def test_wrong_numbers_and_names_of_arguments_raise(self):
        for name, call in self.calls.items():
            parameters = inspect.signature(call.function).parameters.values()
            with self.subTest(call=name):
                with self.assertRaises(TypeError):
                    call.function(*[0] * 9)
                with self.assertRaises(TypeError):
                    call.function(**call.suitable(), colour="red")
                if any(parameter.default is parameter.empty for parameter in parameters):
                    with self.assertRaises(TypeError):
                        call.function()

    def test_refused_and_failed_commands_leak_nothing(self):
        namespace, buffer, most = self.devices.namespace, self.devices.buffer, self.devices.namespace.blocks
        zones, keys = self.devices.zoned.namespace().zones(), self.devices.keyed.namespace().keys()
        reservations, block = namespace.reservations(), bytes(512)
        namespace.write_uncorrectable(65)
        for _ in range(3):
            for call in (
                lambda: namespace.read(65),
                lambda: namespace.read(most),
                lambda: namespace.read_into(65, buffer),
                lambda: namespace.read_many([(64, 1), (65, 1), (66, 1)]),
                lambda: namespace.read_many([(64, 1), (most, 1)]),
                lambda: namespace.write(most, block),
                lambda: namespace.write_many([(0, block), (1, buffer), (most, block)]),
                lambda: namespace.write_many([(0, buffer), (1, buffer)]),
                lambda: namespace.compare(most, block),
                lambda: namespace.compare_and_write(most, block, block),
                lambda: namespace.compare_and_write(0, buffer, buffer),
                lambda: namespace.verify(64, 3),
                lambda: namespace.deallocate(most, 8),
                lambda: upcie.perf(namespace, block_size=1000),
                lambda: zones.append(1, block),
                lambda: zones.set_extension(1, bytes(64)),
                lambda: keys.retrieve("none"),
                lambda: keys.store("none", block, must_exist=True),
                lambda: keys.store("none", bytes(8 << 20)),
                lambda: reservations.release(99, "write-exclusive"),
                lambda: self.devices.plain.namespace(9),
            ):
                self.refuse(call)

    def test_results_are_freed_with_their_last_reference(self):
        namespace, before = self.devices.namespace, self.devices.in_use()
        results = [namespace.read(0, 8), *namespace.read_many([(0, 8), (8, 8)]), self.devices.plain.alloc(4096)]
        view = memoryview(results[0])
        self.assertGreaterEqual(self.devices.in_use()[0], before[0] + 4 * 4096)
        results.clear()
        self.assertGreater(self.devices.in_use()[0], before[0])
        view.release()
        del view
        self.assertEqual(self.devices.in_use(), before)

    def test_classes_without_a_constructor_raise(self):
        for name in upcie.__all__:
            kind = getattr(upcie, name)
            if isinstance(kind, type) and not issubclass(kind, BaseException) and name not in self.calls:
                with self.subTest(kind=name), self.assertRaises(TypeError):
                    kind()


if __name__ == "__main__":
    unittest.main()
