"""What one endpoint does with the ways in which servers fail."""

import json
import threading
import time

import pytest

from preparation.captioning import endpoint
from preparation.captioning.cache import Answer
from preparation.captioning.endpoint import Client, Endpoint, Pace, Stopped, Unanswered


@pytest.fixture
def client(server) -> Client:
    return Client(Endpoint("tiny", server.url, options={"temperature": 0.5}, timeout_s=0.3), threading.Event())


def test_request_and_answer(server, client):
    answer = client.ask("at most 40 words")
    assert (answer.text, answer.finish_reason, answer.tokens_in, answer.tokens_out) == ("A box moves.", "stop", 100, 10)
    message = {"role": "user", "content": "at most 40 words"}
    assert server.requests == [{"model": "tiny", "messages": [message], "temperature": 0.5}]
    assert server.keys == {"Bearer sk-secret"}


@pytest.mark.parametrize(
    "failure",
    [
        429,
        500,
        503,
        0.8,  # silent for longer than the timeout
        (200, {}, "{ no json"),
        (200, {"content-type": "text/html"}, "<html>busy</html>"),
        (200, {}, '{"choices": []}'),
        (200, {}, '{"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}'),
        (200, {}, "[]"),
    ],
)
def test_passing_failures_are_tried_again(server, client, failure):
    server.failures = [failure, failure]
    assert client.ask("hello").text
    assert (len(server.requests), client.retried, client.unanswered) == (3, 2, 0)


def test_retry_after_holds_all_requests(server, client):
    server.failures = [(429, {"retry-after": "0.4"}, "{}")]
    started = time.monotonic()
    client.ask("hello")
    assert time.monotonic() - started >= 0.4


def test_the_end_of_all_tries(server, client, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 2)
    server.failures = [500] * 3
    with pytest.raises(Unanswered, match="the model did not answer"):
        client.ask("hello")
    assert len(server.requests) == 3


def test_a_refused_request_is_not_sent_again(server, client):
    server.failures = [(400, {}, '{"error": {"message": "too many pictures"}}')]
    with pytest.raises(Unanswered, match="refused the request.*too many pictures"):
        client.ask("hello")
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ['{"detail": "too many pictures"}', "too many\n pictures", '"too many pictures"'])
def test_a_refusal_in_the_words_of_the_server(server, client, body):
    """FastAPI (``transformers serve``) and proxies do not use the layout of OpenAI, the only one the client quotes."""
    server.failures = [(400, {}, body)]
    with pytest.raises(Unanswered, match="too many pictures"):
        client.ask("hello")


def test_the_key_is_not_quoted_and_a_page_not_in_full(server, client):
    server.failures = [(400, {}, "sk-secret <p>" * 1000)]
    with pytest.raises(Unanswered) as caught:
        client.ask("hello")
    assert "sk-secret" not in str(caught.value)
    assert len(caught.value.detail) == endpoint.LONGEST_MESSAGE


def test_no_connection_and_no_answer_say_why(server, client, monkeypatch, capsys):
    monkeypatch.setattr(endpoint, "RETRIES", 1)
    server.failures = [0.8, 0.8]
    with pytest.raises(Unanswered, match="no answer in 0.3 s; raise timeout_s"):
        client.ask("hello")
    nobody = Client(Endpoint("tiny", "http://127.0.0.1:1/v1"), threading.Event())
    with pytest.raises(Unanswered, match="refused; run again when it works: what was answered is kept"):
        nobody.ask("hello")
    assert capsys.readouterr().out.count("Trying again") == 2  # once for each endpoint


@pytest.mark.parametrize("failure", [(401, "wrong key sk-secret"), (403, ""), (404, "no such model"), (429, "quota")])
def test_what_no_request_can_survive(server, client, failure):
    status, message = failure
    error = {"message": message} | ({"code": "insufficient_quota"} if message == "quota" else {})
    server.failures = [(status, {}, json.dumps({"error": error}))]
    with pytest.raises(ValueError, match=f"{status}.*Mend it") as caught:
        client.ask("hello")
    assert "sk-secret" not in str(caught.value)
    assert len(server.requests) == 1


def test_an_endpoint_that_never_answers_ends_the_run(server, client, monkeypatch):
    monkeypatch.setattr(endpoint, "GIVE_UP_AFTER", 3)
    server.failures = [400] * 3
    for _ in range(2):
        with pytest.raises(Unanswered):
            client.ask("hello")
    with pytest.raises(ValueError, match="3 requests in a row got no answer"):
        client.ask("hello")


def test_missing_content_is_an_empty_answer(server, client):
    server.reply = lambda prompt: {"message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}
    assert client.ask("hello") == Answer("", "content_filter", 100, 10, pytest.approx(0, abs=9))


def test_pace(monkeypatch):
    waits, stop = [], threading.Event()
    monkeypatch.setattr(endpoint.time, "monotonic", lambda: 50.0)
    pace = Pace(120, stop)
    monkeypatch.setattr(pace, "sleep", waits.append)
    pace.wait()
    pace.wait()
    pace.hold(10)
    pace.wait()
    assert waits == [0.0, 0.5, 10.0]
    stop.set()
    with pytest.raises(Stopped):
        Pace(None, stop).wait()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000/v1"}, "must begin with http"),
        ({"url": None}, "set OPENAI_API_KEY"),
        ({"options": {"stream": True}}, "stream cannot be set there"),
    ],
)
def test_settings_that_cannot_work(server, monkeypatch, settings, message):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match=message):
        Client(Endpoint(**{"model": "tiny", "url": server.url} | settings), threading.Event())


def test_a_local_server_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    Client(Endpoint("tiny", server.url), threading.Event()).ask("hello")
    assert server.keys == {"Bearer none"}
