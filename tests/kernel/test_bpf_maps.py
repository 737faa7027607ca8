"""Entries of maps that are written together: all arrive, on kernels that take them with one call and on others."""

import errno
import os
from contextlib import closing

import pytest

from usdtkit.bpf.bytecode import MapDescription
from usdtkit.bpf.uapi import MAP_ARRAY, MAP_ARRAY_OF_MAPS, MAP_HASH
from usdtkit.errors import UsdtkitError
from usdtkit.kernel import maps

ENTRIES = {n.to_bytes(4, "little"): (n * n).to_bytes(8, "little") for n in range(97)}


@pytest.fixture(params=["one call", "one by one"])
def way(request, monkeypatch):
    class Old:
        """The interface of a kernel that does not know the call."""

        def __getattr__(self, name):
            return getattr(lib, name)

        def usdtkit_map_update_batch(self, *_):
            return -errno.EINVAL

    lib = maps.lib
    if request.param == "one by one":
        monkeypatch.setattr(maps, "lib", Old())


@pytest.mark.parametrize("type", [MAP_HASH, MAP_ARRAY])
def test_many_entries(type, way):
    with closing(maps.Map(MapDescription("many", type, 4, 8, 97, 0))) as many:
        many.update(ENTRIES)
        assert dict(many.items()) == ENTRIES


def test_arrays_in_an_array(way):
    with closing(maps.Map(MapDescription("outer", MAP_ARRAY_OF_MAPS, 4, 4, 97, 0, 64))) as outer:
        inner = {key: maps.new_value(64, "inner") for key in ENTRIES}
        outer.update({key: descriptor.to_bytes(4, "little") for key, descriptor in inner.items()})
        for descriptor in inner.values():
            os.close(descriptor)
        numbers = {int.from_bytes(outer[key], "little") for key in ENTRIES}
    assert len(numbers) == 97
    assert 0 not in numbers


def test_no_room_for_all(way):
    with closing(maps.Map(MapDescription("few", MAP_HASH, 4, 8, 13, 0))) as few:
        with pytest.raises(UsdtkitError, match="writing to the BPF map few"):
            few.update(ENTRIES)
        with pytest.raises(ValueError, match="keys have 4 bytes"):
            few.update({b"key": bytes(8)})
