"""The example that verifies: it notices a bit that was flipped, and overwrites no device unasked."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "examples/verify.py"


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


class Verify(unittest.TestCase):
    def test_it_verifies(self):
        for address in ([], ["emu:size=1M,lba=4096"]):
            done = run(*address)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"verified (1024 blocks of 512|256 blocks of 4096) bytes")

    def test_it_notices_other_data(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as plan:
            plan.write('[[fault]]\nkind = "corrupt"\nopcode = "read"\nafter = 500\ncount = 1\n')
            plan.flush()
            done = run(f"emu:size=16M,faults={plan.name}")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("has other data than was written", done.stderr)

    def test_it_asks_before_it_overwrites(self):
        for address in ("vfio:0000:01:00.0", "emu:file=/nowhere/at/all,size=1M"):
            done = run(address)
            self.assertEqual(done.returncode, 1)
            self.assertIn("--destructive", done.stderr)


if __name__ == "__main__":
    unittest.main()
