"""A Python whose programs start at once: they are forked from a process that has imported the heavy packages.

The fixture ``python`` (conftest.py) is the path of a program that takes the command line of Python. A file or module
that it is asked to run is forked from a server, with the asker's files, folder, environment, signals and exit status,
so that tests that start many processes do not import torch and its company in each. Tests of starting itself, and of
what becomes of a process whose parent is killed, take ``sys.executable``.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

HEAVY = (
    "evaluation.benchmark",
    "lightning_modules.training_cli",
    "peft",
    "torch.distributed.launcher.api",
    "transformers.models.llama.modeling_llama",
)
CLIENT = """#!{python} -IS
import json, os, resource, signal, socket, sys
if sys.argv[1] == "-c":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda number, _: server.send(bytes([number])))
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ), resource.getrlimit(resource.RLIMIT_FSIZE)]).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
status = int(server.recv(8) or -signal.SIGKILL)
if status < 0:
    with __import__("contextlib").suppress(OSError):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@contextlib.contextmanager
def warm_python(folder: Path) -> Iterator[str]:
    """Serve as long as the context lasts; gives the path of the program."""
    address, program = folder / "socket", folder / "python"
    program.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    root = Path(__file__).parent.parent
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, __file__, address, program], cwd=root, env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:  # fmt: skip
        assert server.stdout.readline() == b"ready\n"
        yield str(program)
        server.stdin.close()


def serve(address: str, program: str) -> None:
    """Fork for each connection, until whoever started this one closes its input."""
    for name in HEAVY:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        gc.freeze()
        print("ready", flush=True)
        while select.select([listener, sys.stdin], [], [])[0] == [listener]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection, program)
            connection.close()


def answer(connection: socket.socket, program: str) -> NoReturn:
    """Fork the program, pass signals on to it and its status back; kill it where its client is gone."""
    length, files, *_ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        be(program, files, *json.loads(request))
    for file in (0, 1, 2, *files):
        os.close(file)
    end = os.pidfd_open(child)
    while end not in select.select([connection, end], [], [])[0]:
        for signum in connection.recv(8) or [signal.SIGKILL]:
            os.kill(child, signum)
    with contextlib.suppress(BrokenPipeError):
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def be(
    program: str, files: list[int], arguments: list[str], folder: str, environment: dict[str, str], size: list[int]
) -> NoReturn:
    """Run ``[-u] -m MODULE ..`` or ``[-u] FILE ..`` as the process that Python would be."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    resource.setrlimit(resource.RLIMIT_FSIZE, size)
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.executable = program  # of those that it starts
    sys.argv = arguments[arguments[0] == "-u" :]
    sys.path[:1] = environment.get("PYTHONPATH", "").split(os.pathsep)
    status = 0
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            sys.path.insert(0, folder)
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status and end.code != status:
            print(end.code, file=sys.stderr)
    except BaseException:
        status = 1
        sys.excepthook(*sys.exc_info())
    leave(status)


def leave(status: int) -> NoReturn:
    """End as Python ends, with its threads, exit handlers and buffers, but for taking down what was imported."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(*sys.argv[1:])
