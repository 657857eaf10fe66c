"""Served models are asked of a server that fails where a test wants it to."""

from chat_server import direct, server  # noqa: F401 (fixtures)
