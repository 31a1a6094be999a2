"""RAVDESS from Zenodo, an actor at a time: 24 archives of about 0.5 GB, doi:10.5281/zenodo.1188976.

`fetch` keeps the clips. `fetch_and_cut` keeps their frames only, and so passes the whole data set through a few GB: of
each actor the archive is fetched, its clips are taken out and cut into frames, and both are dropped before the next.
"""

import errno
import os
import shutil
import time
import zipfile
from functools import partial
from pathlib import Path

import pooch

from helpers import frames
from helpers.ravdess import ClipName, Modality, find_clips
from helpers.workspace import RAVDESS, UserError, ravdess_run, replacing

DOI = "doi:10.5281/zenodo.1188976"
MODALITY = Modality.AUDIO_VIDEO  # the one kind of file that is taken out of an archive, as the report did
ZIP_GB, CLIPS_GB, KEPT_GB = 0.6, 0.35, 0.05  # of an actor, rounded up: archive, clips, frames with what is not cut
MB_A_SECOND, CLIP_SECONDS = 10, 0.6  # for the forecast: a download, and cutting one clip of 1280 x 720 on one processor
CLIPS = 60  # of an actor
WAITS = 5, 15, 60, 120  # seconds between tries; a server that says how long (Retry-After) is believed, up to
LONGEST = 300


def plan(actors, folder):
    """What fetching and cutting so many actors takes, in two sentences; UserError if the disk is too small for it."""
    free, gb, stays = _free(folder), len(actors) * ZIP_GB, len(actors) * KEPT_GB
    most = ZIP_GB + CLIPS_GB + stays
    if most > free:
        raise UserError(f"{len(actors)} actors need {most:.1f} GB, and {free:.1f} GB are free at {folder}.")
    minutes = gb * 1000 / MB_A_SECOND / 60, len(actors) * CLIPS * CLIP_SECONDS / (os.cpu_count() or 1) / 60
    download, cut = (max(1, round(m)) for m in minutes)
    return (
        f"{len(actors)} actors, {gb:.1f} GB to download: about {download} min at {MB_A_SECOND} MB/s, and {cut} min to "
        f"cut the clips. At most {most:.1f} GB lie here at a time, {stays:.1f} GB stay, and {free:.0f} GB are free."
    )


def fetch_and_cut(actors, say=print):
    """Fetch the speech clips of some actors and cut them, one actor after another, keeping their frames only.

    What it will take is said before it begins. Cut off and run again, it goes on with the actor that was under way.
    A clip that cannot be cut stays where it is, as do those of “surprised”, which no class wants but Figure 2 shows,
    and those that `fetch` put there before.

    Returns the run that has the frames, `RUNS/ravdess`. UserError if something cannot be fetched.
    """
    run = ravdess_run()
    lost = {name.actor for name in dropped(run) - frames.cut_clips(run.root)}
    done = {name.actor for name in dropped(run)} - lost
    todo = [actor for actor in sorted(set(actors)) if actor not in done]
    if todo:
        say(plan(todo, run.root))
    source = None
    for i, actor in enumerate(todo, 1):
        say(f"Actor {actor:02d}, {i} of {len(todo)}")
        passing = _folder(run.data, actor) / ".dropped-once-cut"
        if not _mark(run.data, actor).exists():
            passing.parent.mkdir(parents=True, exist_ok=True)
            passing.touch()
            source = source or _registry(run.data)
            fetch([actor], run.data, source=source)
        clips, _ = find_clips(run.data, dropped=dropped(run))
        _, failed = frames.prepare(clips, run.root)
        if not passing.exists():
            continue
        kept = {path for path, _ in failed}
        cut = {name: path for name, path in clips.items() if name.actor == actor and path not in kept}
        with replacing(run.path("dropped.txt")) as file:  # first the list, then the clips
            file.writelines(f"{name}\n" for name in sorted({*dropped(run), *cut}))
        for path in (*cut.values(), _mark(run.data, actor), passing):
            path.unlink(missing_ok=True)
    return run


def dropped(run):
    """The names of the clips of a run that were dropped once they were cut: set of ClipName."""
    file = run.root / "dropped.txt"
    return {ClipName.parse(line) for line in file.read_text("utf-8").split()} if file.exists() else set()


def fetch(actors, folder=RAVDESS, keep_zips=False, source=None):
    """Download the speech clips of some actors into `folder/Actor_NN/`; run again, it goes on with the next actor.

    Parameters
    ----------
    actors : iterable of int
    keep_zips : keep each archive (about 0.5 GB) once its clips are out
    source : a `pooch.Pooch` that knows the archives' checksums; without one, Zenodo's record

    Returns the number of clips now there, by actor. UserError if the disk is too small or an archive is damaged.
    """
    folder = Path(folder)
    marks = {actor: _mark(folder, actor) for actor in sorted(set(actors))}
    todo = [actor for actor, mark in marks.items() if not mark.exists()]
    need, free = len(todo) * CLIPS_GB + (len(todo) if keep_zips else bool(todo)) * ZIP_GB, _free(folder)
    if need > free:
        raise UserError(f"{len(todo)} actors need {need:.1f} GB, and {free:.1f} GB are free at {folder}.")
    for actor in todo:
        source = source or _registry(folder)
        name = f"Video_Speech_Actor_{actor:02d}.zip"
        archive = Path(_patiently(partial(source.fetch, name, progressbar=True), f"Actor {actor:02d}"))
        try:
            _unpack(archive, folder, actor)
        except zipfile.BadZipFile as problem:
            raise UserError(f"{archive} is damaged ({problem}): delete it and fetch again.") from problem
        marks[actor].touch()
        if not keep_zips:
            archive.unlink()
    return {actor: len(list(mark.parent.glob("*.mp4"))) for actor, mark in marks.items()}


def _registry(folder):
    """A pooch over the RAVDESS record, which holds the archives' names and checksums (asks Zenodo for them)."""
    source = pooch.create(path=folder, base_url=f"{DOI}/")
    _patiently(source.load_registry_from_doi, "Zenodo's list of files")
    return source


def _patiently(ask, what):
    """What `ask()` gives, tried again where the connection broke, a checksum was wrong, or the server is busy.

    UserError if it fails for good.
    """
    waits = list(WAITS)
    while True:
        try:
            return ask()
        except (OSError, ValueError, KeyError) as problem:  # busy, Zenodo's list of files is a page without any
            answer = getattr(problem, "response", None)
            refused = answer is not None and answer.status_code < 500 and answer.status_code != 429
            if not waits or refused or getattr(problem, "errno", None) == errno.ENOSPC:
                raise UserError(f"{what} could not be fetched ({problem}): run this again to go on.") from problem
            asked = "" if answer is None else answer.headers.get("Retry-After", "")
        wait = waits.pop(0)
        time.sleep(min(int(asked), LONGEST) if asked.isdigit() else wait)


def _folder(folder, actor):
    return Path(folder) / f"Actor_{actor:02d}"


def _mark(folder, actor):
    return _folder(folder, actor) / f".modality-{MODALITY:02d}-complete"


def _free(folder):
    """GB free where a folder is or will be."""
    there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    return shutil.disk_usage(there).free / 1e9


def _unpack(archive, folder, actor):
    """Take one actor's clips out of an archive, by their names alone: its paths are not trusted."""
    target = _folder(folder, actor)
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            try:
                name = ClipName.parse(entry.filename)
            except ValueError:
                continue
            if name.actor == actor and name.modality == MODALITY and not entry.is_dir():
                with zipped.open(entry) as clip, replacing(target / f"{name}.mp4", "wb") as file:
                    shutil.copyfileobj(clip, file)
