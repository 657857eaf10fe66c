"""Ask a trained model about your own videos, and see the answers play.

python ask.py --checkpoint RUN VIDEO "a man opens the door" "a dog jumps"
python ask.py --checkpoint RUN VIDEO --question "Why does he leave?" --choices "he is late|he is angry"
python ask.py --checkpoint RUN --videos FOLDER --describe "a man opens the door"
python ask.py --checkpoint RUN VIDEO --chat
python ask.py --checkpoint RUN --serve

Exit status: 0 fine, 1 some videos could not be read, 2 bad input or usage.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from command_line.errors import failed
from command_line.parser import CommandParser
from command_line.paths import check_run
from command_line.tables import console


def parser() -> CommandParser:
    """The command line."""
    from asking.features import CACHE
    from asking.windows import Windows
    from models.generation import GenerationChange

    made = CommandParser(prog="ask.py", description=__doc__.splitlines()[0])
    add = made.add_argument
    add("asked", nargs="*", type=str, help="VIDEO and moments to find in it; with --videos moments alone")
    add("--checkpoint", type=Path, required=True, help="run folder or .ckpt of train.py, exported or released weights")
    add("--videos", type=Path, default=None, help="folder, or list of files (a path a line)")
    add("--question", action="append", type=str, default=[], help="a question to answer in words; can be repeated")
    add("--choices", action="append", type=str, default=[], help="'A|B|C': options of the question, one for each")
    add("--describe", action="store_true", help="tell all events with their times")
    add("--queries", type=Path, default=None, help="records to ask (.jsonl), or a text file with a moment a line")
    add("--chat", action="store_true", help="a conversation in the terminal")
    add("--serve", action="store_true", help="a small app on this machine (extra app)")
    add("--port", type=int, default=7860, help="of --serve")
    add("--output", type=Path, default=Path("runs/ask"), help="folder for answers.jsonl, answers.csv and page.html")
    add("--html", nargs="?", type=str, const="", default="", help="another place for the page")
    add("--embed", action="store_true", help="put videos of up to 20 MB inside the page")
    add("--reencode", action="store_true", help="write videos that browsers do not play once more, as H.264")
    add("--cut", type=Path, default=None, help="folder for the moments as clips")
    add("--subtitles", type=str, choices=["srt", "vtt"], default=None, help="write what was found as subtitles")
    add("--top", type=int, default=3, help="moments of an answer that are printed")
    add("--llm", type=str, default=None, help="base model, if it is not where the run names it")
    add("--encoder", type=str, default=None, help="vision encoder, if it is not where the run names it")
    add("--dtype", type=str, default=None, help="to compute in; default bfloat16 on an accelerator, else float32")
    add("--quantization", choices=["nf4", "int8", "none"], default=None, help="of the base; default as in training")
    add("--cache", type=Path, default=CACHE, help="folder in which features are kept")
    add("--quiet", action="store_true", help="print nothing but errors and what was written")
    made.add_argument("--generation", type=GenerationChange, default=GenerationChange(), help="decoding")
    made.add_argument("--localizer", type=dict[str, Any] | None, default=None, help="how times are read differently")
    made.add_argument("--windows", type=Windows, default=Windows(), help="how long videos are cut")
    return made


def sorted_out(made: CommandParser, args: Sequence[str]) -> list[str]:
    """Arguments with videos and questions in front, because argparse wants them side by side."""
    words, options, rest = [], [], list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, *rest, *options]
        if not word.startswith("--") or word == "-":
            words.append(word)
            continue
        options.append(word)
        action = made._option_string_actions.get(word)
        page = word == "--html" and rest and rest[0].lower().endswith((".html", ".htm"))
        if rest and action is not None and (page or action.nargs not in (0, "?")):
            options.append(rest.pop(0))
    return [*words, *options]


def run(settings: Namespace) -> int:
    """Do what the command line says."""
    from asking.command import Asked, ask, complain
    from asking.videos import find_videos

    words, videos = list(settings.asked), settings.videos
    if not settings.serve and videos is None:
        if not words:
            raise ValueError("no video: name a file, or a folder or a list with --videos")
        videos = Path(words.pop(0))
    same = ("checkpoint", "describe", "queries", "output", "embed", "reencode", "cut", "subtitles", "top", "llm",
            "encoder", "dtype", "quantization", "generation", "localizer", "windows", "cache")  # fmt: skip
    asked = Asked(
        videos=videos or Path("."),
        moments=tuple(words),
        questions=tuple(settings.question),
        choices=tuple(settings.choices),
        html=Path(settings.html) if settings.html else None,
        **{name: settings[name] for name in same},
    )
    check_run(asked.checkpoint)
    if settings.serve:
        from asking.app import check_port, serve

        check_port(settings.port)
        serve(asked.model(), settings.port)
        return 0
    if settings.chat:
        from asking.conversation import Conversation, talk

        found, problems = find_videos(asked.videos, asked.windows)
        for problem in problems:
            complain(problem)
        return talk(Conversation(asked.model(), found))
    return ask(asked)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    made = parser()
    settings = made.parse_args(sorted_out(made, sys.argv[1:] if args is None else args))
    console.quiet = settings.quiet
    try:
        return run(made.instantiate(settings))
    except Exception as error:
        return failed("ask.py", error)
    finally:
        console.quiet = False


if __name__ == "__main__":
    sys.exit(main())
