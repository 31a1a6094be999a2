"""A copy of the runs in another folder, such as Google Drive, so that a machine that is lost costs minutes.

What is dear is kept: models, histories, predictions, paid answers, tables, figures; and frames, one archive an actor,
since thousands of small files are what such folders are slowest at. Features are not: from frames they take minutes.
"""

import atexit
import logging
import re
import shutil
import threading
import time
import zipfile
from collections import defaultdict

from helpers.workspace import replacing

log = logging.getLogger(__name__)

EVERY = 30  # seconds between two looks at what has changed
LEFT_OUT = {"features", "frames", ".drafts"}  # folders of a run; frames go into archives


def keep(runs, copy):
    """Bring back what a copy has and `runs` has not, then copy what changes, every `EVERY` seconds, in the background.

    A last time when Python ends. Called again it does nothing more.
    """
    if any(thread.name == "keeping" for thread in threading.enumerate()):
        return
    restore(copy, runs)
    save(runs, copy)
    threading.Thread(target=_keep_on, args=(runs, copy), name="keeping", daemon=True).start()
    atexit.register(save, runs, copy)


def _keep_on(runs, copy):
    while True:
        time.sleep(EVERY)
        try:
            save(runs, copy)
        except OSError as problem:  # a file that was replaced meanwhile, or Drive is full: the next round may do better
            log.warning("Not all is in %s yet: %s", copy, problem)


def save(runs, copy):
    """Copy what is new or has changed in a folder of runs. Safe while a run writes: each file appears there whole."""
    for path in _dear(runs):
        target = copy / path.relative_to(runs)
        if not target.exists() or _stamp(target) != _stamp(path):
            _copy(path, target)
    for run in _runs(runs):
        by_actor = defaultdict(list)
        for picture in run.glob("frames/*/*/*.jpg"):
            by_actor[re.search(r"(\d\d)_\d+$", picture.stem)[1]].append(picture)
        for actor, pictures in by_actor.items():
            _archive(run, sorted(pictures), copy / run.name / "frames" / f"Actor_{actor}.zip")


def restore(copy, runs):
    """Bring back what a copy has and a folder of runs has not."""
    for path in _dear(copy):
        if not (target := runs / path.relative_to(copy)).exists():
            _copy(path, target)
    for archive in copy.glob("*/frames/Actor_??.zip"):
        run = runs / archive.relative_to(copy).parts[0]
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(run, [name for name in zipped.namelist() if not (run / name).exists()])


def _dear(runs):
    for run in _runs(runs):
        for folder in [run, *(sub for sub in run.iterdir() if sub.is_dir() and sub.name not in LEFT_OUT)]:
            files = folder.glob("*") if folder == run else folder.rglob("*")
            yield from (path for path in files if path.is_file() and not path.name.startswith("."))
    yield from runs.glob("*.jsonl")


def _runs(runs):
    return [path for path in runs.glob("*") if path.is_dir()]


def _stamp(path):
    return path.stat().st_size, int(path.stat().st_mtime)


def _copy(path, target):
    with open(path, "rb") as source, replacing(target, "wb") as file:
        shutil.copyfileobj(source, file)
    shutil.copystat(path, target)


def _archive(run, pictures, archive):
    names = [picture.relative_to(run).as_posix() for picture in pictures]
    sizes = [picture.stat().st_size for picture in pictures]
    if archive.exists():
        with zipfile.ZipFile(archive) as zipped:
            if {entry.filename: entry.file_size for entry in zipped.infolist()} == dict(zip(names, sizes, strict=True)):
                return
    with replacing(archive, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zipped:
        for picture, name in zip(pictures, names, strict=True):
            zipped.write(picture, name)
