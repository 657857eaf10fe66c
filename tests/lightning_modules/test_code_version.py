"""The version of the code is read from the checkout, which stays as it is."""

import os
import subprocess

from lightning_modules import preflight


def test_the_commit_and_whether_files_differ(tmp_path, monkeypatch):
    def git(*command: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", tmp_path, *who, *command], check=True, capture_output=True, text=True
        ).stdout

    file = tmp_path / "room" / "x.py"
    file.parent.mkdir()
    file.write_text("1\n")
    monkeypatch.setattr(preflight, "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert preflight.version_of_code() == "unknown"
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    commit = git("rev-parse", "HEAD")[:12]
    os.utime(file, (1, 1))  # as after a copy: git would note it in its index
    before = (tmp_path / ".git" / "index").read_bytes()
    assert preflight.version_of_code() == commit
    assert (tmp_path / ".git" / "index").read_bytes() == before
    (tmp_path / ".git" / "index.lock").touch()  # another git is at work
    file.write_text("2\n")
    assert preflight.version_of_code() == f"{commit}-dirty"
