"""Score answers to dialogues: by the words they share with the references, or by another model as judge."""

import json
import threading
from contextlib import closing
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from jsonargparse.typing import PositiveInt

from command_line.paths import check_there
from command_line.tables import console
from datamodules.kept import file_fingerprint
from datamodules.prediction import said
from datamodules.prediction_files import read_predictions
from datamodules.query_files import read_queries
from datamodules.schema import Query
from datamodules.skips import OnError, SkippedFiles
from evaluation.judge import WORDING, Exchange, exchanges, judge_job, judged
from evaluation.results import metrics_table
from metrics.dialogue import dialogue_scores
from preparation.captioning.asking import Asker
from preparation.captioning.cache import AnswerCache
from preparation.captioning.endpoint import Client, Endpoint
from preparation.captioning.planning import spent
from preparation.captioning.running import run_jobs
from preparation.summary import print_skipped


def dialogue(
    predictions: Path,
    queries: Path | list[Path],
    output: Path,
    judge: Endpoint | None = None,
    concurrency: PositiveInt = 8,
    cache: Path | None = None,
    only_estimate: bool = False,
    on_error: OnError = "fail",
) -> dict[str, float]:
    """Score the answers to dialogues; with a judge in five dimensions, run it again after a kill and it goes on.

    Args:
        predictions: predictions.jsonl of ``benchmark``.
        queries: the dialogues that were asked, with their reference answers; one file or several.
        output: where metrics.json and judged.jsonl go.
        judge: the model that grades, behind an OpenAI-compatible address. Without one, words are compared.
        concurrency: requests on the way at the same time.
        cache: file that keeps every request and its answer; without it ``judge.requests.jsonl`` in the output folder.
        only_estimate: ask for the first few grades only, and say what all would take.
        on_error: stop at the first grade that failed, or leave it out and count it.

    Returns:
        the scores; of a judge from 0 to 5.

    Raises:
        ValueError: no dialogue with reference answers, or a failure under the policy ``fail``.
    """
    check_there(predictions=predictions)
    paths = queries if isinstance(queries, list) else [queries]
    answers = {one.query_id: one for one in read_predictions(predictions)}
    asked = [query for path in paths for query in read_queries(path) if _has_reference(query)]
    if not asked:
        raise ValueError(f"{', '.join(map(str, paths))}: no dialogue with reference answers in it")
    answered = [(query, answers.get(query.id)) for query in asked]
    references = [[turn.answer for turn in query.turns] for query in asked]
    scores = dialogue_scores([said(answer) for _, answer in answered], references)
    about = {
        "predictions": {"file": str(predictions), "sha256": file_fingerprint(predictions)},
        "queries": [{"file": str(path), "sha256": file_fingerprint(path)} for path in paths],
        "policy": "a question without an answer scores 0 and stays in the denominator",
    }
    output.mkdir(parents=True, exist_ok=True)
    if judge is not None:
        graded, more = grade(exchanges(answered), judge, output, concurrency, cache, only_estimate, on_error)
        if only_estimate:
            return {}
        scores |= judged(graded)
        about["judge"] = more
    (output / "metrics.json").write_text(json.dumps({"metrics": scores, "protocol": about}, indent=2) + "\n")
    console.print(metrics_table(scores, f"{predictions}, {f'judge: {judge.model}' if judge else 'no judge'}"))
    return scores


def _has_reference(query: Query) -> bool:
    return query.task == "dialogue" and all(turn.answer for turn in query.turns)


def grade(
    wanted: list[Exchange],
    judge: Endpoint,
    output: Path,
    concurrency: int,
    cache: Path | None,
    only_estimate: bool,
    on_error: OnError,
) -> tuple[list[tuple[Exchange, float]], dict]:
    """Each exchange with its score, where it has one, and what the protocol says of the judge."""
    stop, skips = threading.Event(), SkippedFiles(on_error, output / "judge.skipped.jsonl")
    client = Client(judge, stop)
    asked = [exchange for exchange in wanted if not exchange.missing]
    with closing(AnswerCache(cache or output / "judge.requests.jsonl")) as requests:
        asker = Asker(requests)
        jobs = [judge_job(exchange, client) for exchange in asked]
        results = run_jobs(jobs, asker, skips, stop, concurrency, only_estimate)
    print_skipped(skips.entries)
    graded = [(exchange, 0.0) for exchange in wanted if exchange.missing]
    graded += [(asked[number], score) for number, score in sorted(results.items())]
    rows = ({"query": one.query_id, "dimension": one.dimension, "score": score} for one, score in graded)
    (output / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    about = {key: value for key, value in asdict(judge).items() if key in ("model", "url", "options")}
    about |= {"prompts_sha256": sha256(json.dumps(WORDING, sort_keys=True).encode()).hexdigest()}
    about |= {"missing": len(wanted) - len(asked), "failed": len(skips.entries)}
    return graded, about | spent(asker, [client])
