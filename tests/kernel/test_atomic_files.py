"""A name never stands for half a file."""

import pytest

from rollout.kernel import atomic_files
from rollout.kernel.atomic_files import write_files_atomically


def test_all_files_appear_and_nothing_else(tmp_path):
    write_files_atomically(tmp_path / "out", {"a.txt": b"a", "b.txt": b"b"})
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        "a.txt": b"a",
        "b.txt": b"b",
    }


def test_an_interrupt_leaves_what_stood_there_before(tmp_path, monkeypatch):
    write_files_atomically(tmp_path, {"a.txt": b"old", "b.txt": b"old"})
    written = []

    def interrupted(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(atomic_files, "_write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_files_atomically(tmp_path, {"a.txt": b"new", "b.txt": b"new"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "a.txt": b"old",
        "b.txt": b"old",
    }
