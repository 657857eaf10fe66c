"""A server that speaks the chat-completions protocol, and fails where a test wants it to."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import prepare
from command_line import tables
from preparation.captioning import endpoint

DIALOGUE = {"turns": [{"question": "When is it red?", "answer": "From <s0> to <e0>."}]}


class ChatServer(ThreadingHTTPServer):
    """Answers requests and keeps what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.requests: list[dict] = []
        """Bodies, in the order of arrival."""
        self.keys: set[str] = set()
        self.failures: list = []
        """What to do with the next requests: a status, (status, headers, body), or seconds to be silent."""
        self.delay_s = 0.0
        self.reply = self.plain_reply
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that went away is no news."""

    def plain_reply(self, prompt: str) -> str:
        """A well-formed answer to any prompt."""
        if "JSON" in prompt:
            return json.dumps(DIALOGUE)
        if "at most 40 words" in prompt:
            return "A box moves."
        return f"A white box moves to the right{' in a hurry' * ('of 2 seconds' in prompt)}."

    @property
    def prompts(self) -> list[str]:
        """The text of every request."""
        contents = [request["messages"][0]["content"] for request in self.requests]
        return [content if isinstance(content, str) else content[-1]["text"] for content in contents]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.requests.append(body)
            server.keys.add(self.headers["authorization"])
            prompt = server.prompts[-1]
            failure = server.failures.pop(0) if server.failures else None
        time.sleep(server.delay_s)
        if isinstance(failure, float):
            time.sleep(failure)
        elif failure is not None:
            return self.send(
                *(failure if isinstance(failure, tuple) else (failure, {}, '{"error": {"message": "no"}}'))
            )
        reply = server.reply(prompt)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
        if isinstance(reply, dict):
            choice |= reply
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return self.send(200, {}, json.dumps(answer | {"usage": usage}))

    def send(self, status: int, headers: dict, body: str):
        self.send_response(status)
        for name, value in (
            {"content-type": "application/json", "content-length": len(body.encode())} | headers
        ).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def direct(monkeypatch):
    """No proxy and no foreign key in the environment; short waits."""
    pytest.importorskip("openai", reason="the openai client is not installed (extra captioning)")
    proxies = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for name in (*proxies, "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)


@pytest.fixture
def server(direct, monkeypatch):
    """A running server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    chat = ChatServer()
    thread = threading.Thread(target=chat.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield chat
    chat.shutdown()
    chat.server_close()
    thread.join()


@pytest.fixture
def prepared(monkeypatch, capsys):
    """Run prepare.py; returns exit status and everything that was printed, spaces squeezed."""
    monkeypatch.setattr(tables.console, "width", 300)

    def run_prepare(arguments) -> tuple[int, str]:
        status = prepare.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, " ".join((captured.out + captured.err).split())

    return run_prepare
