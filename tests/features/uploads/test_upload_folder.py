"""The private folder of uploads: ours alone, and deleted when nobody lives who made it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.features.uploads.upload_runs import (
    UploadFolder,
    build_default_root,
    delete_abandoned_uploads,
)
from rollout.kernel.errors import RefusalError

CRASHING = """
import os, sys
from pathlib import Path
from rollout.features.uploads.upload_runs import UploadFolder
folder = UploadFolder(Path(sys.argv[1]))
path = folder.create_upload()
(path / "predictions.csv").write_text("secret")
print(path, flush=True)
sys.stdin.read()
os._exit(1)
"""


@pytest.fixture
def root(tmp_path):
    return tmp_path / "uploads"


def start(root):
    process = subprocess.Popen(
        (sys.executable, "-c", CRASHING, root),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return process, Path(process.stdout.readline().strip())


def test_an_upload_has_a_folder_that_nobody_else_can_open(root):
    folder = UploadFolder(root)
    first, second = folder.create_upload(), folder.create_upload()
    assert first != second
    for path in (root, first.parent, first):
        assert path.stat().st_mode & 0o777 == 0o700, path


@pytest.mark.parametrize("is_root", [False, True])
def test_a_folder_that_the_machine_cleaned_away_is_made_again(root, is_root):
    folder = UploadFolder(root)
    first = folder.create_upload().parent
    shutil.rmtree(root if is_root else first)
    second = folder.create_upload()
    assert second.is_dir()
    assert delete_abandoned_uploads(root) == 0, "its replica lives"


@pytest.mark.slow
def test_the_files_of_a_replica_that_crashed_are_deleted_at_the_next_start(root):
    with start(root)[0] as process:
        path = next(root.glob("replica-*/*"))
        assert delete_abandoned_uploads(root) == 0, "its replica lives"
        assert (path / "predictions.csv").exists()
        process.kill()
        process.wait(60)
    assert delete_abandoned_uploads(root) == 1
    assert [path.name for path in root.iterdir()] == ["root.lock"]
    assert delete_abandoned_uploads(root) == 0


def test_the_files_of_a_replica_that_ends_as_usual_are_deleted_at_once(root):
    folder = UploadFolder(root)
    folder.create_upload()
    assert len(list(root.iterdir())) == 3
    del folder
    assert [path.name for path in root.iterdir()] == ["root.lock"]


def test_a_folder_that_others_can_open_or_made_is_not_used(root, tmp_path):
    root.mkdir(mode=0o755)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    (theirs / "replica-1").mkdir()
    link = tmp_path / "link"
    link.symlink_to(theirs)
    for path in (root, link):
        with pytest.raises(RefusalError, match="is not private to the service"):
            UploadFolder(path).create_upload()
        assert delete_abandoned_uploads(path) == 0
    assert (theirs / "replica-1").exists()


def test_a_start_goes_on_if_nothing_can_be_deleted(root, caplog):
    root.mkdir(mode=0o700)
    (root / "root.lock").mkdir()
    assert delete_abandoned_uploads(root) == 0
    assert "may remain" in caplog.text


def test_the_folder_lies_where_temporary_files_do(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert build_default_root() == tmp_path / f"rollout-uploads-{os.getuid()}"
