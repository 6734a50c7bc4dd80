"""The stubs tell what the native part has: its names, and the parameters of each call with their kinds and defaults."""

import ast
import inspect
import pathlib
import unittest

import upcie
from upcie import _native


def parameters(function, skip):
    """Returns the parameters of a function of the stubs, but for the first `skip`."""
    arguments = function.args
    places = [(argument.arg, inspect.Parameter.POSITIONAL_ONLY) for argument in arguments.posonlyargs]
    places += [(argument.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD) for argument in arguments.args]
    defaults = [None] * (len(places) - len(arguments.defaults)) + arguments.defaults
    places += [(argument.arg, inspect.Parameter.KEYWORD_ONLY) for argument in arguments.kwonlyargs]
    defaults += arguments.kw_defaults
    made = []
    for (name, kind), default in zip(places, defaults, strict=True):
        value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        made.append(inspect.Parameter(name, kind, default=value))
    return made[skip:]


class Stubs(unittest.TestCase):
    def setUp(self):
        path = pathlib.Path(upcie.__file__).with_name("_native.pyi")
        nodes = ast.parse(path.read_text()).body
        self.stubs = {node.name: node for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        functions = {name: node for name, node in self.stubs.items() if isinstance(node, ast.FunctionDef)}
        self.functions = functions
        self.classes = {
            name: {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
            for name, node in self.stubs.items()
            if name not in functions
        }

    def test_they_name_all_that_exists(self):
        public = {name for name in dir(_native) if not name.startswith("_")}
        self.assertEqual(set(self.stubs), public)
        for name, members in self.classes.items():
            kind = getattr(_native, name)
            told = {member for member in members if not member.startswith("_")}
            self.assertEqual(told, {member for member in vars(kind) if not member.startswith("_")}, name)
            for member in told:
                is_property = bool(members[member].decorator_list)
                self.assertNotEqual(is_property, callable(getattr(kind, member)), f"{name}.{member}")

    def test_their_parameters_are_those_of_the_calls(self):
        def compare(name, told, real):
            self.assertEqual(told, list(inspect.signature(real).parameters.values()), name)

        for name, function in self.functions.items():
            compare(name, parameters(function, 0), getattr(_native, name))
        for name, members in self.classes.items():
            kind = getattr(_native, name)
            # PyO3 gives a class a signature if it can be called.
            self.assertEqual("__new__" in members, bool(kind.__text_signature__), name)
            if "__new__" in members:
                compare(name, parameters(members["__new__"], 1), kind)
            for member, function in members.items():
                if not member.startswith("_") and not function.decorator_list:
                    # Of a bound method the signature leaves `self` out.
                    real = inspect.signature(getattr(kind, member)).parameters.values()
                    self.assertEqual(parameters(function, 1), list(real)[1:], f"{name}.{member}")


if __name__ == "__main__":
    unittest.main()
