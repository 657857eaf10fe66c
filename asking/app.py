"""A small app in the browser, on this machine alone: upload, ask, see."""

import socket
import tempfile
from pathlib import Path
from urllib.parse import quote

from asking.model import Model
from asking.questions import about, description, moment, question
from command_line.tables import console
from reports.escaping import escaped
from reports.media import probe, reencoded
from reports.page import Shown, write_page

HOST = "127.0.0.1"
KINDS = ("a moment", "a question", "everything that happens")


def serve(model: Model, port: int) -> None:
    """Serve until Ctrl-C.

    Raises:
        ValueError: gradio is not installed, or the port is taken.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("--serve needs gradio, which is not installed: pip install -e '.[app]'") from None
    check_port(port)
    with tempfile.TemporaryDirectory(prefix="whenlm-") as work:
        app = build(model, Path(work))
        console.print(f"Open http://{HOST}:{port} in a browser; Ctrl-C ends it.", highlight=False)
        app.launch(server_name=HOST, server_port=port, quiet=True, show_error=True, allowed_paths=[work])


def check_port(port: int) -> None:
    """Raise ValueError if nobody can listen on a port here."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, OverflowError):
        raise ValueError(f"port {port} is taken or not allowed; choose another with --port") from None


def build(model: Model, work: Path):
    """The app: a video and a question on the left, the page with the answer on the right.

    Args:
        model: that is asked.
        work: folder for pages and re-encoded videos.
    """
    import gradio

    def answer(file: str | None, kind: str, text: str, choices: str) -> str:
        if not file:
            raise gradio.Error("Upload a video first.")
        try:
            return framed(model, Path(file), kind, text, choices, work)
        except (ValueError, OSError) as error:
            raise gradio.Error(str(error)) from None

    with gradio.Blocks(title="WhenLM", analytics_enabled=False) as app:
        gradio.Markdown("# Ask a video")
        with gradio.Row():
            with gradio.Column(scale=1):
                file = gradio.File(label="Video file", file_types=["video"], elem_id="video")
                kind = gradio.Radio(KINDS, value=KINDS[0], label="find", elem_id="kind")
                text = gradio.Textbox(label="what", elem_id="text")
                choices = gradio.Textbox(label="choices, with | between them (of a question)", elem_id="choices")
                button = gradio.Button("Ask", variant="primary", elem_id="ask")
            with gradio.Column(scale=3):
                shown = gradio.HTML(elem_id="answer")
        inputs = [file, kind, text, choices]
        button.click(answer, inputs, shown)
        text.submit(answer, inputs, shown)
    return app


def framed(model: Model, file: Path, kind: str, text: str, choices: str, work: Path) -> str:
    """The page of one answer, inside a frame of its own.

    Raises:
        ValueError: the video cannot be read, or there is no question.
    """
    asked = {KINDS[0]: lambda: moment(text), KINDS[1]: lambda: question(text, choices), KINDS[2]: description}[kind]()
    seen = model.open(file)
    results = model.results(seen, about([asked], [seen.id])[seen.id])
    answers = tuple((result.query, result.prediction) for result in results)
    played = reencoded(file, work) if probe(file).unplayed else file
    shown = Shown(file.name, results[0].duration_s, answers, played, link=f"/gradio_api/file={quote(str(played))}")
    write_page(work / "page.html", [shown], "Answer")
    page = (work / "page.html").read_text(encoding="utf-8")
    return f'<iframe srcdoc="{escaped(page)}" style="width:100%;height:85vh;border:0" title="answer"></iframe>'
