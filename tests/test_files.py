"""Files are written whole or not at all, under any name, and stay what they were."""

import contextlib
import os

import pytest

from sonant.files import sweep_parts, write_atomically, written_beside, written_over


def test_the_longest_name_that_a_system_takes_is_written(tmp_path):
    for name in ("n" * 250 + ".wav", "語" * 80 + ".wav", "n" * 249 + ".json"):
        path = tmp_path / name
        write_atomically(path, b"one", is_private=False)
        with written_beside(path) as place:
            place.write_bytes(b"two")
        assert path.read_bytes() == b"two"
    assert len(list(tmp_path.iterdir())) == 3


def test_what_a_killed_process_left_of_a_long_name_is_found(tmp_path):
    path = tmp_path / ("n" * 250 + ".wav")
    left = tmp_path / f".{'n' * 200}.abc.part"
    left.write_bytes(b"half")
    assert sweep_parts(tmp_path, of=path.name) == [left]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_a_new_file_is_as_readable_as_the_umask_has_it(tmp_path, mask):
    before = os.umask(mask)
    try:
        with written_over(tmp_path / "a.wav") as place:
            place.write_bytes(b"new")
        write_atomically(tmp_path / "b.json", b"{}", is_private=False)
        write_atomically(tmp_path / "c.voice", b"{}")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"a.wav": 0o666 & ~mask, "b.json": 0o666 & ~mask, "c.voice": 0o600}


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_file_that_is_written_over_keeps_its_permissions(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with written_over(path) as place:
        place.write_bytes(b"new")
    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (0o600, b"new")


def test_a_file_is_written_over_only_when_the_block_ends_well(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with contextlib.suppress(OSError), written_over(path) as place:
        place.write_bytes(b"ne")
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has links and pipes of its own")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.wav").write_bytes(b"old")
    link = tmp_path / "link.wav"
    link.symlink_to("real.wav")
    with written_over(link) as place:
        place.write_bytes(b"new")
    assert link.is_symlink()
    assert (tmp_path / "real.wav").read_bytes() == b"new"
