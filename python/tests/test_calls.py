"""What every call has in common, by the table of all calls: wrong types and shapes raise."""

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
        try:
            function(*arguments, **keywords)
        except MISTAKES:
            pass
        else:
            self.fail("it raises nothing")

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

    def test_classes_without_a_constructor_raise(self):
        for name in upcie.__all__:
            kind = getattr(upcie, name)
            if isinstance(kind, type) and not issubclass(kind, BaseException) and name not in self.calls:
                with self.subTest(kind=name), self.assertRaises(TypeError):
                    kind()


if __name__ == "__main__":
    unittest.main()
