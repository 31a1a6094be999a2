"""The baseline: Amazon Rekognition's DetectFaces, asked for the same frames, and its answers kept.

A call costs money, so every answer is kept as it came, in `RUNS/rekognition.jsonl`, under the picture's content. All
that follows is computed from the kept answers (helpers/emotions.py), and no picture is asked for twice, in any run.
Source: docs.aws.amazon.com/rekognition/latest/APIReference/API_DetectFaces.html
"""

import contextlib
import functools
import json
import math
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from joblib import Parallel, delayed
from joblib.parallel import LokyBackend, ThreadingBackend, get_active_backend
from tqdm import tqdm

from helpers import aws
from helpers.workspace import SAMPLE, SEED, UserError, alone, content, writing

# US dollars a picture: the first million of a month in us-east-1, as aws.amazon.com/rekognition/pricing had it on
# 7 October 2026; other regions cost a little more
PRICE = 0.001
PER_SECOND = 5, 25  # answers: the quota of most regions, and aws.CALLS at a time if each takes about 0.3 s
TRIES = 3  # where boto3 has none of its own
PATIENCE = 8  # so many pictures in a row without an answer, after all their retries, end a run

SIMULATED = "SIMULATED"
SIMULATED_ANSWERS = SAMPLE / "rekognition.jsonl"  # to the drawn sample, under a frame's name: see helpers/simulated.py
NOT_ASKED, FULL = "not asked", "its answer cannot be written"
ENDS = {**aws.SENTENCES, FULL: "An answer could not be written to rekognition.jsonl: see whether the disk is full."}


def answers_file(run):
    """Where answers are kept, for all runs in RUNS: they were paid for, and a run is deleted lightly."""
    return run.root.parent / "rekognition.jsonl"


def read_answers(run, frames):
    """The kept answer to each frame (of the drawn sample, the one made up): a Series of n dicts, None where none is.

    A dict is a line of the file: `answer` as DetectFaces gave it, and `asked` (a time), `host`, or `simulated`. Only
    answers of the service that AWS's settings name count: Amazon's own, unless AWS_ENDPOINT_URL_REKOGNITION is set.

    Parameters
    ----------
    frames : DataFrame (n rows) of `frames.csv`
    """
    if run.data == SAMPLE:
        kept = {line["picture"]: line for line in _lines(SIMULATED_ANSWERS)}
        found = [kept.get(path.rpartition("/")[2]) for path in frames["path"]]
    else:
        kept = _kept(answers_file(run))
        found = [kept.get(content(run.root / path)) for path in frames["path"]]
    return pd.Series(found, frames.index, dtype=object)


def note(answers):
    """What every number from these answers must be read with; empty if each frame has Amazon's own."""
    lines, notes = answers.dropna(), []
    if any(line.get("simulated") for line in lines):
        notes.append(SIMULATED)
    others = {aws.service(line["host"]) for line in lines if "host" in line} - {aws.AMAZON}
    notes += [f"answers of {host}, not of Amazon" for host in sorted(others)]
    if len(lines) < len(answers):
        notes.append(f"{len(lines):,} of {len(answers):,} frames answered")
    return "; ".join(notes)


def limit():
    """How many US dollars a run may cost: REKOGNITION_LIMIT in the environment. Without it 0, and nothing is asked."""
    value = os.environ.get("REKOGNITION_LIMIT") or "0"
    try:
        dollars = float(value)
    except ValueError:
        raise UserError(f"REKOGNITION_LIMIT is {value!r}: set it to a number of US dollars, such as 4.") from None
    _pictures(dollars)
    return dollars


def cost_in_words(answers, dollars):
    """What it costs to ask for what has no answer yet, how long it takes, and how much of it `dollars` allow."""
    lacking, allowed = int(answers.isna().sum()), _pictures(dollars)
    made_up = f" ({SIMULATED})" if SIMULATED in note(answers) else ""
    text = f"{len(answers):,} frames, {len(answers) - lacking:,} of them answered already{made_up}. "
    if not lacking:
        return text + "Nothing is left to ask."
    whole = math.ceil(100 * lacking * PRICE - 1e-6) / 100
    text += f"The other {lacking:,} cost about {whole:.2f} US dollars ({PRICE} each). "
    if not allowed:
        return f"{text}The limit is 0 dollars, so none is asked: set REKOGNITION_LIMIT, to {whole:.2f} for all of them."
    asked = min(lacking, allowed)
    slow, fast = (max(1, round(asked / rate / 60)) for rate in PER_SECOND)
    minutes = f"{fast} to {slow} minutes" if slow > fast else "a minute"
    return text + f"The limit is {dollars:.2f} dollars: {asked:,} of them are asked, in about {minutes}."


def ask(run, frames, dollars):
    """Ask Rekognition for the frames without an answer, in random order, for at most so many US dollars a time.

    An answer is on disk before its call counts as done. A picture that gets none is passed over and named at the end,
    in a UserError; where going on is of no use (refused credentials, no network, a full disk) the run ends at once, in
    a UserError too. A second run at the same time waits for the first. boto3's retries do not count for the limit.
    """
    if run.data == SAMPLE or read_answers(run, frames).notna().all():
        return
    client, file = aws.connect(), answers_file(run)
    if allowed := _pictures(dollars):
        with alone(file):
            kept = _kept(file)
            pictures = {content(path): path for path in (run.root / path for path in frames["path"])}
            todo = [(picture, path) for picture, path in pictures.items() if picture not in kept]
            order = np.random.default_rng(SEED).permutation(len(todo))[:allowed]
            with writing(file):
                target = open(file, "ab", buffering=0)  # noqa: SIM115
                if file.stat().st_size and not file.read_bytes().endswith(b"\n"):
                    target.write(b"\n")  # after a line that was cut off
            with target:
                _ask_all(client, [todo[i] for i in order], target)


def _ask_all(client, todo, target):
    stop, failed, in_a_row, end = threading.Event(), {}, 0, None
    way = _here if isinstance(get_active_backend()[0], LokyBackend | ThreadingBackend) else _afar
    bar = tqdm(total=len(todo), desc="pictures", file=sys.stdout)
    with bar, contextlib.closing(way(client, todo, target, stop)) as work:
        for path, problem in work:
            if problem == NOT_ASKED:
                continue
            bar.update()
            if problem:
                failed[path] = problem
            in_a_row = in_a_row + 1 if problem else 0
            end = end or ENDS.get(problem)
            if in_a_row == PATIENCE:
                end = end or f"Rekognition gave no answer {PATIENCE} times in a row ({problem}): try again later."
            if end:
                stop.set()
    if end:
        raise UserError(f"{end} Every answer until then is kept.")
    if failed:
        named = ", ".join(f"{path.name} ({problem})" for path, problem in list(failed.items())[:5])
        more = f" and {len(failed) - 5:,} more" * (len(failed) > 5)
        raise UserError(f"{len(failed):,} of {len(todo):,} pictures got no answer: {named}{more}. Run this again.")


def _here(client, todo, target, stop):
    """Ask from this machine, a few at a time; yields (path, problem) as they come, None where there is no problem."""
    writing = threading.Lock()

    def ask_and_keep(picture, path):
        if stop.is_set():
            return path, NOT_ASKED
        line, problem = _ask_one(picture, _bytes(path), client)
        with writing:  # on disk before its call counts as done
            problem = problem or (None if _written(line, target) else FULL)
        if problem in ENDS:
            stop.set()  # what still waits comes back at once
        return path, problem

    # Not joblib's threads, but those of the standard library: interrupted, it waits for the calls that are under way.
    with ThreadPoolExecutor(aws.CALLS) as pool:
        work = [pool.submit(ask_and_keep, picture, path) for picture, path in todo]
        try:
            yield from (future.result() for future in as_completed(work))
        finally:
            stop.set()


def _afar(_, todo, target, stop):
    """Ask through joblib's backend, from other machines say, each with a client of its own; answers are kept here.

    The pictures are sent there, so no disk need be shared. Interrupted, the answers to calls under way are lost.
    """
    calls = (delayed(_ask_afar)(picture, path, _bytes(path)) for picture, path in todo if not stop.is_set())
    with contextlib.closing(Parallel(batch_size=1, return_as="generator_unordered")(calls)) as work:
        for path, line, problem in work:
            yield path, problem or (None if _written(line, target) else FULL)


def _ask_afar(picture, path, content):
    return path, *_ask_one(picture, content, _client())


@functools.cache
def _client():
    return aws.connect()


def _bytes(path):
    try:
        return path.read_bytes()
    except OSError:
        return None


def _ask_one(picture, content, client):
    """Ask for one picture; returns (line to keep, problem), one of which is None."""
    if content is None:
        return None, "the picture cannot be read"
    try:
        for _ in range(TRIES):  # boto3 tries again by itself, but gives an answer that was cut short as an empty one
            answer = client.detect_faces(Image={"Bytes": content}, Attributes=["EMOTIONS"])
            if "FaceDetails" in answer:
                break
        else:
            return None, "an answer that is none"
        del answer["ResponseMetadata"]
        asked = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"picture": picture, "asked": asked, "host": aws.host(client), "answer": answer}) + "\n"
        return line.encode(), None
    except ClientError as error:
        return None, error.response["Error"].get("Code", "an error without a code")
    except (BotoCoreError, ResponseParserError, ValueError) as error:
        return None, type(error).__name__


def _written(line, target):
    before = os.fstat(target.fileno()).st_size
    try:
        if target.write(line) == len(line):
            os.fsync(target.fileno())
            return True
        target.truncate(before)  # else the next line would be glued to this part of one
    except OSError:
        pass
    return False


def _pictures(dollars):
    """How many pictures so many dollars pay for."""
    if not 0 <= dollars < 1e6:  # not a number is neither
        raise UserError(f"The limit is {dollars} US dollars: set REKOGNITION_LIMIT to 0 or more, such as 4.")
    return int(dollars / PRICE + 1e-6)


def _lines(file):
    """The whole lines of a file of answers; one that was cut off is passed over."""
    lines = []
    for text in file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            lines += [line] if isinstance(line, dict) and {"picture", "answer"} <= set(line) else []
    return lines


def _kept(file):
    """{content: line} of the answers of the service that AWS's settings name."""
    wanted = aws.configured_service()
    return {line["picture"]: line for line in _lines(file) if aws.service(line.get("host", "")) == wanted}
