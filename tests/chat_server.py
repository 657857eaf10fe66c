"""Servers of the chat-completions protocol: one that fails where a test wants it to, and `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from preparation.captioning import endpoint

DIALOGUE = {"turns": [{"question": "When is it red?", "answer": "From <s0> to <e0>."}]}
TINY_LM = Path(__file__).parents[1] / "configs/quickstart/tiny-lm"
TEMPLATE = """\
{% for message in messages %}{% for part in message['content'] %}
{%- if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"""


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
        self.models: list[str] = ["the-model"]
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

    def do_GET(self):
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.server.models]
        self.send(200, {}, json.dumps({"object": "list", "data": listed}))

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


def save_tiny_vlm(folder: Path) -> None:
    """A LLaVA with random weights, which writes about a dozen words of nonsense."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(TINY_LM)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image = tokenizer.convert_tokens_to_ids("<image>")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **sizes),
        text_config=LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **sizes),
        image_token_index=image,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "suppress_tokens": [0, 1, image]}
    ends = {"min_new_tokens": 4, "exponential_decay_length_penalty": (8, 1.5)}  # random weights find no end themselves
    model.generation_config = GenerationConfig(**special, **ends)
    model.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    layout = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(pictures, tokenizer, chat_template=TEMPLATE, **layout).save_pretrained(folder)


@contextmanager
def serving(log: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server process and its address; it loads whatever model a request names, and asks no hub."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1"]
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()
