"""Writes a random pattern, reads it back and compares: `python verify.py [ADDRESS] [--destructive]`.

It overwrites the first blocks of the namespace. A device other than the controller in software takes `--destructive`.
"""

import os
import sys

import upcie

words = [word for word in sys.argv[1:] if word != "--destructive"]
address = words[0] if words else "emu:size=16M"
is_medium = address.partition(":")[0] != "emu" or "file=" in address
if is_medium and "--destructive" not in sys.argv:
    sys.exit(f"{address}: it overwrites the first blocks: say --destructive")

with upcie.Controller(address) as controller:
    namespace = controller.namespace(1)
    size = namespace.block_size
    places = range(min(1024, namespace.blocks))
    # No run before has left it there.
    pattern = [os.urandom(size) for _ in places]
    namespace.write_many(list(zip(places, pattern)))
    namespace.flush()
    for slba, buffer in zip(places, namespace.read_many([(slba, 1) for slba in places])):
        if buffer.tobytes() != pattern[slba]:
            sys.exit(f"{controller.name}: block {slba} has other data than was written")
    print(f"{controller.name}: verified {len(places)} blocks of {size} bytes")
