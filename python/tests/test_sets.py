"""Metadata, and what only some controllers have: zones, keys and values, reservations, placement; with mistakes."""

import threading
import unittest

import numpy as np

import upcie


class Metadata(unittest.TestCase):
    """Blocks of 512 bytes with 8 bytes of protection information of type 1."""

    def open(self, more=""):
        controller = upcie.Controller("emu:size=4M,ms=8,pi=1" + more)
        self.addCleanup(controller.close)
        return controller, controller.namespace()

    def test_metadata_apart(self):
        controller, namespace = self.open()
        self.assertEqual((namespace.block_size, namespace.metadata_size, namespace.protection_type), (512, 8, 1))
        self.assertTrue(namespace.separate_metadata)
        self.assertEqual(namespace.command_set, "NVM")
        data = np.arange(4096, dtype=np.uint32).astype(np.uint8)
        # The controller makes the tuples, then checks and returns them.
        namespace.write(16, data, protect=upcie.Protect(8, app_tag=0x1234))
        back, tuples = controller.alloc(4096), controller.alloc(64)
        namespace.read_into(16, back, metadata=tuples, protect=upcie.Protect(7, app_tag=0x1234))
        np.testing.assert_array_equal(back.array(), data)
        tags = tuples.array(np.dtype([("guard", ">u2"), ("app", ">u2"), ("ref", ">u4")]))
        np.testing.assert_array_equal(tags["ref"], np.arange(16, 24))
        self.assertEqual(set(tags["app"].tolist()), {0x1234})
        self.assertEqual(namespace.read(16, 8, protect=upcie.Protect(8)).tobytes(), data.tobytes())
        # The same tuples elsewhere belong to other blocks, and the controller says so.
        namespace.write(64, back, metadata=tuples)
        with self.assertRaises(upcie.StatusError) as raised:
            namespace.read(64, 8, protect=upcie.Protect(8 + 1))
        self.assertEqual(raised.exception.status & 0x7FF, 0x284)
        # With type 1 the tag is the number of the block; with type 2 it is the program's.
        with self.assertRaises(upcie.StatusError) as raised:
            namespace.read(64, 8, protect=upcie.Protect(8 + 1, ref_tag=16))
        self.assertEqual(raised.exception.status & 0x7FF, 0x181)
        with upcie.Controller("emu:size=1M,ms=8,pi=2") as other:
            free = other.namespace()
            free.write(64, data, protect=upcie.Protect(8, ref_tag=16))
            self.assertEqual(free.read(64, 8, protect=upcie.Protect(8 + 7, ref_tag=16)).tobytes(), data.tobytes())
        namespace.write(64, bytes(4096), metadata=bytes(64))
        namespace.read_into(64, back, metadata=tuples)
        self.assertEqual((back.tobytes(), tuples.tobytes()), (bytes(4096), bytes(64)))
        # Without a word about protection the controller makes, checks and strips it.
        with self.assertRaises(upcie.StatusError):
            namespace.read(64, 8)
        namespace.write(64, data)
        self.assertEqual(namespace.read(64, 8).tobytes(), data.tobytes())

    def test_metadata_at_the_end_of_blocks(self):
        _, namespace = self.open(",extended=true")
        self.assertEqual((namespace.block_size, namespace.metadata_size), (520, 8))
        self.assertFalse(namespace.separate_metadata)
        namespace.write(0, b"x" * 1024, protect=upcie.Protect(8))
        whole = namespace.read(0, 2).tobytes()
        self.assertEqual((len(whole), whole[:512], whole[520:1032]), (1040, b"x" * 512, b"x" * 512))
        self.assertEqual(len(namespace.read(0, 2, protect=upcie.Protect(8))), 1024)

    def test_mistakes(self):
        controller, namespace = self.open()
        data, short = controller.alloc(4096), controller.alloc(56)
        for call in (
            lambda: namespace.write(0, data, metadata=short),
            lambda: namespace.write(0, data, metadata=data),
            lambda: namespace.write(0, data, metadata=b""),
            lambda: namespace.write(0, data, metadata=1),
            lambda: namespace.read_into(0, data, metadata=b"x" * 64),
            lambda: namespace.read_into(0, data, protect=7),
            lambda: upcie.Protect(16),
            lambda: upcie.Protect(-1),
            lambda: upcie.Protect(1, app_tag=1 << 16),
            lambda: upcie.Protect(1, 2),
        ):
            with self.assertRaises((upcie.Error, TypeError, ValueError, OverflowError, BufferError)):
                call()
        # All came back.
        data.fill(1)
        short.fill(1)
        self.assertIn("0x5", repr(upcie.Protect(7, app_tag=5)))
        with upcie.Controller("emu:size=1M") as other:
            with self.assertRaises(upcie.RefusedError):
                other.namespace().read(0, protect=upcie.Protect(1))


class Zoned(unittest.TestCase):
    def setUp(self):
        self.controller = upcie.Controller("emu:size=1M,zoned=true,zone-size=64K,max-open=3")
        self.addCleanup(self.controller.close)
        self.namespace = self.controller.namespace()
        self.zones = self.namespace.zones()

    def test_appends_and_reports(self):
        zones, start = self.zones, 3 * self.zones.zone_blocks
        self.assertEqual((len(zones), zones.count, zones.zone_blocks, zones.max_open), (16, 16, 128, 3))
        self.assertEqual(self.namespace.command_set, "Zoned Namespace")
        self.assertIn("16 zones", repr(zones))
        places = [zones.append(start, bytes([number]) * 4096) for number in range(4)]
        self.assertEqual(places, [start + 8 * number for number in range(4)])
        for number, place in enumerate(places):
            self.assertEqual(self.namespace.read(place, 8).tobytes(), bytes([number]) * 4096)
        buffer = self.controller.alloc(512)
        self.assertEqual(zones.append(start, buffer), start + 32)
        [zone] = zones.report(start + 5, 1)
        self.assertEqual((zone.start, zone.capacity, zone.write_pointer), (start, 128, start + 33))
        self.assertEqual(zone.state, "Implicitly Opened")
        self.assertIn("Implicitly Opened", repr(zone))
        states = [zone.state for zone in zones.report()]
        self.assertEqual((len(states), states.count("Empty")), (16, 15))

    def test_zones_change(self):
        zones, start = self.zones, self.zones.zone_blocks
        zones.open_zone(start)
        zones.append(start, bytes(512))
        zones.close_zone(None)
        self.assertEqual(zones.report(start, 1)[0].state, "Closed")
        zones.finish_zone(start)
        [zone] = zones.report(start, 1)
        self.assertEqual((zone.state, zone.write_pointer), ("Full", None))
        with self.assertRaises(upcie.StatusError) as raised:
            zones.append(start, bytes(512))
        self.assertEqual(raised.exception.status & 0x7FF, 0x1B9)
        zones.reset_zone(None)
        self.assertEqual({zone.state for zone in zones.report()}, {"Empty"})

    def test_mistakes(self):
        zones = self.zones
        for call in (
            lambda: zones.append(1, bytes(512)),
            lambda: zones.append(1 << 40, bytes(512)),
            lambda: zones.append(0, bytes(511)),
            lambda: zones.append(0, bytes(1 << 20)),
            lambda: zones.append(0, b""),
            lambda: zones.append(None, bytes(512)),
            lambda: zones.report(1 << 40),
            lambda: zones.report(-1),
            lambda: zones.open_zone(1),
            lambda: zones.reset_zone(),
            lambda: upcie.Zones(),
            self.namespace.keys,
        ):
            with self.assertRaises((upcie.Error, TypeError, ValueError, OverflowError, BufferError)):
                call()
        with upcie.Controller("emu:size=1M") as other, self.assertRaises(upcie.UnsupportedError):
            other.namespace().zones()
        self.controller.close()
        for call in (zones.report, lambda: zones.append(0, bytes(512)), lambda: zones.reset_zone(None)):
            with self.assertRaises(upcie.ClosedError):
                call()

    def test_random_write_areas_and_extensions(self):
        options = "emu:size=1M,zoned=true,zone-size=64K,zde=64,zrwa=8K,read-only-zones=1"
        with upcie.Controller(options) as controller:
            zones = controller.namespace().zones()
            self.assertEqual((zones.random_write_area, zones.extension_size), (16, 64))
            zones.open_zone(0, random_writes=True)
            for slba in (8, 0, 8):
                controller.namespace().write(slba, bytes(4096))
            self.assertEqual(zones.report(0, 1)[0].write_pointer, 0)
            zones.flush_random_writes(15)
            self.assertEqual(zones.report(0, 1)[0].write_pointer, 16)
            start = 2 * zones.zone_blocks
            zones.set_extension(start, b"name".ljust(64, b"\0"))
            [(zone, extension)] = zones.report_extended(start, 1)
            self.assertEqual((zone.start, zone.state, extension[:4]), (start, "Closed", b"name"))
            [last] = [zone.start for zone in zones.report() if zone.state == "Read Only"]
            zones.offline_zone(last)
            self.assertEqual(zones.report(last, 1)[0].state, "Offline")
            for call in (
                lambda: zones.open_zone(None, random_writes=True),
                lambda: zones.set_extension(start, b"name"),
                lambda: zones.flush_random_writes(1 << 40),
                lambda: zones.offline_zone(start),
            ):
                with self.assertRaises(upcie.Error):
                    call()

    def test_threads_append_to_one_zone(self):
        places = []

        def work():
            places.extend(self.zones.append(0, bytes(512)) for _ in range(16))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(places), list(range(64)))


class Keys(unittest.TestCase):
    def setUp(self):
        self.controller = upcie.Controller("emu:size=1M,kv=true")
        self.addCleanup(self.controller.close)
        self.namespace = self.controller.namespace()
        self.keys = self.namespace.keys()

    def test_values(self):
        keys = self.keys
        self.assertEqual(self.namespace.command_set, "Key Value")
        self.assertEqual(keys.max_key, 16)
        values = {f"key {number}".encode(): bytes([number]) * (number * 1500) for number in range(8)}
        for key, value in values.items():
            keys.store(key, value)
        for key, value in values.items():
            self.assertEqual(keys.retrieve(key), value)
        self.assertEqual(set(keys.list()), set(values))
        self.assertEqual(keys.list("key 3", 2), [b"key 3", b"key 4"])
        # A str is its bytes, and arrays are values.
        keys.store("array", np.arange(10, dtype=np.uint16).reshape(2, 5))
        np.testing.assert_array_equal(np.frombuffer(keys.retrieve(b"array"), np.uint16), np.arange(10))
        keys.flush()
        self.assertTrue(keys.exists("array"))
        keys.delete("array")
        self.assertFalse(keys.exists("array"))
        self.assertIn(f"{keys.size} bytes", repr(keys))

    def test_buffers_without_copies(self):
        buffer = self.controller.alloc(5000)
        buffer.fill(7)
        self.keys.store("k", buffer)
        buffer.fill(0)
        self.assertEqual(self.keys.retrieve_into("k", buffer), 5000)
        self.assertEqual(buffer.tobytes(), bytes([7]) * 5000)
        small = self.controller.alloc(10)
        self.assertEqual(self.keys.retrieve_into("k", small), 5000)
        self.assertEqual(small.tobytes(), bytes([7]) * 10)

    def test_options(self):
        with self.assertRaises(upcie.StatusError) as raised:
            self.keys.store("new", b"x", must_exist=True)
        self.assertEqual(raised.exception.status & 0x7FF, 0x87)
        self.keys.store("new", b"x", must_not_exist=True)
        with self.assertRaises(upcie.StatusError) as raised:
            self.keys.store("new", b"y", must_not_exist=True)
        self.assertEqual(raised.exception.status & 0x7FF, 0x89)
        self.assertIn('"new"', raised.exception.operation)

    def test_mistakes(self):
        keys, namespace, buffer = self.keys, self.namespace, self.controller.alloc(512)
        for call in (
            lambda: keys.store("", b"x"), lambda: keys.store("seventeen bytes !", b"x"), lambda: keys.store(1, b"x"),
            lambda: keys.store("k", 1), lambda: keys.store("k", None), lambda: keys.store("k", bytes(8 << 20)),
            lambda: keys.store("\ud800", b"x"), lambda: keys.retrieve("none"), lambda: keys.retrieve(None),
            lambda: keys.retrieve_into("k", b"x"), lambda: keys.delete([]), lambda: keys.list(most=-1),
            lambda: keys.exists("k", "k"), lambda: upcie.KeyValue(), namespace.zones,
            # It has no blocks.
            lambda: namespace.read(0), lambda: namespace.read(0, 0), lambda: namespace.write(0, buffer),
            lambda: namespace.read_many([(0, 1)]), lambda: namespace.write_many([(0, buffer)]),
            lambda: namespace.write_zeroes(0, 1), lambda: upcie.perf(namespace),
        ):
            with self.assertRaises((upcie.Error, TypeError, ValueError, OverflowError, BufferError)):
                call()
        buffer.fill(1)
        self.controller.close()
        for call in (keys.list, lambda: keys.store("k", buffer), lambda: keys.retrieve("k")):
            with self.assertRaises(upcie.ClosedError):
                call()


class Hosts(unittest.TestCase):
    """Reservations of one host; several are tested in Rust."""

    def test_reservations(self):
        with upcie.Controller("emu:size=1M") as controller:
            controller.set_host_id(7)
            reservations = controller.namespace().reservations()
            reservations.register(0xABC, persist=True)
            reservations.replace(0xABC, 5)
            reservations.acquire(5, "write-exclusive")
            report = reservations.report()
            self.assertEqual((report.kind, report.persists), ("write-exclusive", True))
            [one] = report.registrants
            self.assertEqual((one.host, one.key, one.holds), (7, 5, True))
            self.assertIn("holds the reservation", repr(one))
            self.assertIn("write-exclusive", repr(report))
            for call in (
                lambda: reservations.release(6, "write-exclusive"),
                # No host has the second key.
                lambda: reservations.preempt(5, 6, "exclusive-access"),
                lambda: reservations.preempt(5, 6, "exclusive-access", abort=True),
            ):
                with self.assertRaises(upcie.StatusError) as raised:
                    call()
                self.assertEqual(raised.exception.status & 0x7FF, 0x83)
            reservations.release(5, "write-exclusive")
            reservations.unregister(None)
            self.assertEqual((reservations.report().kind, reservations.report().registrants), (None, []))
            reservations.register(1)
            reservations.clear(1)
            self.assertEqual(reservations.report().registrants, [])

    def test_long_identifiers(self):
        with upcie.Controller("emu:size=1M") as controller:
            controller.set_host_id(bytes(range(16)))
            reservations = controller.namespace().reservations()
            reservations.register(1)
            self.assertEqual(reservations.report().registrants[0].host, bytes(range(16)))

    def test_mistakes(self):
        with upcie.Controller("emu:size=1M") as controller:
            reservations = controller.namespace().reservations()
            for call in (
                lambda: controller.set_host_id(-1), lambda: controller.set_host_id(bytes(8)), lambda: controller.set_host_id("7"),
                lambda: controller.set_host_id(1 << 64), lambda: reservations.acquire(1, "shared"),
                lambda: reservations.acquire(1, 1), lambda: reservations.register(None), lambda: reservations.register(1 << 64),
                lambda: reservations.release(1), lambda: reservations.unregister(), lambda: upcie.Reservations(),
            ):
                with self.assertRaises((upcie.Error, TypeError, ValueError, OverflowError)):
                    call()
            controller.close()
            for call in (reservations.report, lambda: reservations.register(1), lambda: controller.set_host_id(1)):
                with self.assertRaises(upcie.ClosedError):
                    call()


class Placed(unittest.TestCase):
    def setUp(self):
        self.controller = upcie.Controller("emu:size=4M,fdp=true,fdp-handles=4,fdp-groups=2,fdp-unit=64K")
        self.addCleanup(self.controller.close)
        self.namespace = self.controller.namespace()
        self.placement = self.namespace.placement()

    def left(self):
        return {handle.identifier: handle.available_blocks for handle in self.placement.handles()}

    def test_writes_fill_their_units(self):
        placement, namespace = self.placement, self.namespace
        self.assertEqual((placement.endurance_group, placement.reclaim_groups, placement.unit_size), (1, 2, 65536))
        first, third, other = placement.identifier(0), placement.identifier(2), placement.identifier(2, group=1)
        self.assertEqual(set(self.left().values()), {128})
        self.assertEqual((len(self.left()), len({first, third, other})), (8, 3))
        namespace.write(0, bytes(4096), placement=third)
        namespace.write(8, self.controller.alloc(512))
        namespace.write_many([(16, bytes(512)), (17, bytes(1024))], placement=other)
        namespace.copy([(0, 5)], 64, placement=third)
        left = self.left()
        self.assertEqual((left[first], left[third], left[other]), (127, 128 - 13, 125))
        placement.update([third, other])
        left = self.left()
        self.assertEqual((left[first], left[third], left[other]), (127, 128, 128))
        self.assertIn("65536 bytes", repr(placement))
        self.assertIn("blocks left", repr(placement.handles()[0]))

    def test_mistakes(self):
        placement = self.placement
        for call in (
            lambda: placement.update([]), lambda: placement.update([0x7FFF]), lambda: placement.update([1 << 16]),
            lambda: placement.update("ab"), lambda: placement.identifier(0, 2), lambda: placement.identifier(1 << 16),
            lambda: self.namespace.write(0, bytes(512), placement=-1), lambda: upcie.Placement(),
        ):
            with self.assertRaises((upcie.Error, TypeError, ValueError, OverflowError)):
                call()
        with upcie.Controller("emu:size=1M") as other, self.assertRaises(upcie.UnsupportedError):
            other.namespace().placement()
        self.controller.close()
        with self.assertRaises(upcie.ClosedError):
            placement.handles()


if __name__ == "__main__":
    unittest.main()
