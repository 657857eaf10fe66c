"""Captions are asked of a server that fails where a test wants it to."""

import pytest
from chat_server import direct, server  # noqa: F401 (fixtures)

import prepare
from command_line import tables


@pytest.fixture
def prepared(monkeypatch, capsys):
    """Run prepare.py; returns exit status and everything that was printed, spaces squeezed."""
    monkeypatch.setattr(tables.console, "width", 300)

    def run_prepare(arguments) -> tuple[int, str]:
        status = prepare.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, " ".join((captured.out + captured.err).split())

    return run_prepare
