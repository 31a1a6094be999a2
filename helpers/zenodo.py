"""RAVDESS from Zenodo, an actor at a time: 24 archives of about 0.5 GB, doi:10.5281/zenodo.1188976.

`fetch` keeps the clips. `fetch_and_cut` keeps their frames only, and so passes the whole data set through a few GB: of
each actor the archive is fetched, its clips are taken out and cut into frames, and both are dropped before the next.
"""

import errno
import logging
import os
import re
import shutil
import time
import zipfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath

import pooch

from helpers import frames
from helpers.keeping import DAMAGED, open_entry
from helpers.ravdess import ClipName, Modality, find_clips
from helpers.workspace import OLD, RAVDESS, UserError, alone, ravdess_run, replacing, writing

log = logging.getLogger(__name__)

DOI = "doi:10.5281/zenodo.1188976"
MODALITY = Modality.AUDIO_VIDEO  # the one kind of file that is taken out of an archive, as the report did
ZIP_GB, CLIPS_GB, KEPT_GB = 0.6, 0.35, 0.05  # of an actor, rounded up: archive, clips, frames with what is not cut
MB_A_SECOND, CLIP_SECONDS = 10, 0.6  # for the forecast: a download, and cutting one clip of 1280 x 720 on one processor
CLIPS = 60  # of an actor
CLIP_BYTES = 30 * 10**6  # no clip is larger: most have about 4 MB
WAITS = 5, 15, 60, 120  # seconds between tries; a server that says how long (Retry-After) is believed, up to
LONGEST = 300


def plan(actors, folder):
    """What fetching and cutting so many actors takes, in two sentences; UserError if the disk is too small for it."""
    free, gb, stays = _free(folder), len(actors) * ZIP_GB, len(actors) * KEPT_GB
    most = ZIP_GB + CLIPS_GB + stays
    if most > free:
        raise UserError(f"{_counted(actors)} need {most:.1f} GB, and {free:.1f} GB are free at {folder}.")
    minutes = gb * 1000 / MB_A_SECOND / 60, len(actors) * CLIPS * CLIP_SECONDS / (os.cpu_count() or 1) / 60
    download, cut = (max(1, round(m)) for m in minutes)
    return (
        f"{_counted(actors)}, {gb:.1f} GB to download: about {download} min at {MB_A_SECOND} MB/s, and {cut} min to "
        f"cut the clips. At most {most:.1f} GB lie here at a time, {stays:.1f} GB stay, and {free:.0f} GB are free."
    )


def fetch_and_cut(actors, say=print):
    """Fetch the speech clips of some actors and cut them, one actor after another, keeping their frames only.

    What it will take is said before it begins. Cut off and run again, it goes on with the actor that was under way.
    A clip that cannot be cut stays where it is, as do those of “surprised”, which no class wants but Figure 2 shows,
    and those of an actor of whom clips were there before.

    Returns the run that has the frames, `RUNS/ravdess`. UserError if something cannot be fetched.
    """
    run, actors = ravdess_run(), _checked(actors)
    cut = frames.cut_clips(run.root)
    gone = {name for name in dropped(run) - cut if not _clip(run.data, name).exists()}
    done = {name.actor for name in dropped(run)} - {name.actor for name in gone}
    todo = [actor for actor in actors if actor not in done or _passing(run.data, actor).exists()]
    if to_fetch := [actor for actor in todo if not _is_whole(run.data, actor)]:
        say(plan(to_fetch, run.data))
    source = None
    for i, actor in enumerate(todo, 1):
        say(f"Actor {actor:02d}, {i} of {len(todo)}")
        if not _is_whole(run.data, actor):
            mine = not any(_folder(run.data, actor).glob("01-01-0[1-7]-*.mp4"))  # else somebody put clips there to stay
            source = source or _registry(run.data)
            fetch([actor], run.data, source=source)
            if mine:
                _passing(run.data, actor).touch()
        clips, _ = find_clips(run.data, dropped=dropped(run))
        _, failed = frames.prepare(clips, run.root)
        if not _passing(run.data, actor).exists():
            continue
        theirs = {name for name in clips if name.actor == actor}
        with alone(run.root / "dropped.txt"), replacing(run.root / "dropped.txt") as file:  # before the clips
            file.writelines(f"{name}\n" for name in sorted(dropped(run) | theirs))
        stay = {path for path, _ in failed}
        for path in {_clip(run.data, name) for name in theirs} - stay:
            path.unlink(missing_ok=True)
        _mark(run.data, actor).unlink(missing_ok=True)
        _passing(run.data, actor).unlink()
    return run


def dropped(run):
    """The names of the clips of a run that were dropped once they were cut: set of ClipName."""
    return frames.dropped(run.root)


def fetch(actors, folder=RAVDESS, keep_zips=False, source=None):
    """Download the speech clips of some actors into `folder/Actor_NN/`; run again, it goes on with the next actor.

    Parameters
    ----------
    actors : iterable of int
    keep_zips : keep each archive (about 0.5 GB) once its clips are out
    source : a `pooch.Pooch` that knows the archives' checksums; without one, Zenodo's record

    Returns the number of clips now there, by actor. UserError if the disk is too small or an archive is damaged.
    A second call at the same time waits.
    """
    folder, actors = Path(folder), _checked(actors)
    todo = [actor for actor in actors if not _is_whole(folder, actor)]
    need, free = len(todo) * CLIPS_GB + (len(todo) if keep_zips else bool(todo)) * ZIP_GB, _free(folder)
    if need > free:
        raise UserError(f"{_counted(todo)} need {need:.1f} GB, and {free:.1f} GB are free at {folder}.")
    if wrong := [path for path in (folder, *(_folder(folder, actor) for actor in todo)) if _blocked(path, folder)]:
        raise UserError(f"{wrong[0]} is a file or a link, where a folder should be: move it away and fetch again.")
    with alone(folder / "downloads"):
        for left in folder.glob("tmp*"):  # pooch's, of a download that was killed
            is_pooch_s = re.fullmatch("tmp[a-z0-9_]{8}", left.name) and left.is_file()
            if is_pooch_s and time.time() - left.stat().st_mtime > OLD:
                left.unlink(missing_ok=True)
        for actor in [actor for actor in todo if not _is_whole(folder, actor)]:
            source = source or _registry(folder)
            name = f"Video_Speech_Actor_{actor:02d}.zip"
            archive = Path(_patiently(partial(source.fetch, name, progressbar=True), f"Actor {actor:02d}"))
            try:
                _unpack(archive, folder, actor)
            except UserError:  # the disk is full
                raise
            except DAMAGED as problem:
                reason = str(problem) or "cut short"
                raise UserError(f"{archive} is damaged ({reason}): delete it and fetch again.") from problem
            with writing(_mark(folder, actor)):
                _mark(folder, actor).touch()
            if not keep_zips:
                archive.unlink()
    return {actor: len(list(_folder(folder, actor).glob("*.mp4"))) for actor in actors}


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
            asked, wait = "" if answer is None else answer.headers.get("Retry-After", ""), waits.pop(0)
            wait = min(int(asked), LONGEST) if asked.isdigit() else wait
            log.warning("%s: %s. Trying again in %d s.", what, problem, wait)
        time.sleep(wait)


def _folder(folder, actor):
    return Path(folder) / f"Actor_{actor:02d}"


def _blocked(path, folder):
    return (path.exists() and not path.is_dir()) or (path.is_symlink() and path != folder)


def _mark(folder, actor):
    return _folder(folder, actor) / f".modality-{MODALITY:02d}-complete"


def _passing(folder, actor):
    return _folder(folder, actor) / ".dropped-once-cut"


def _clip(folder, name):
    return _folder(folder, name.actor) / f"{name}.mp4"


def _is_whole(folder, actor):
    """Whether all clips of an actor are there: fetched, or put there by hand."""
    return _mark(folder, actor).exists() or len(list(_folder(folder, actor).glob("01-01-*.mp4"))) >= CLIPS


def _checked(actors):
    """Actors in order, each once; UserError if RAVDESS has no such actor."""
    if wrong := sorted(set(actors) - set(range(1, 25))):
        raise UserError(f"RAVDESS has no actor {wrong[0]}: name some of 1 to 24.")
    return sorted(set(actors))


def _counted(actors):
    return "1 actor" if len(actors) == 1 else f"{len(actors)} actors"


def _free(folder):
    """GB free where a folder is or will be."""
    there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    return shutil.disk_usage(there).free / 1e9


def _unpack(archive, folder, actor):
    """Take one actor's clips out of an archive by their names alone: its paths are not trusted. An error leaves none.

    Of entries that name the same clip, in another folder or in another case, the first counts.
    """
    target, taken = _folder(folder, actor), set()
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        for draft in target.glob(".01-*.part"):  # of a fetch that was killed
            draft.unlink()
    with zipfile.ZipFile(archive) as zipped, ExitStack() as drafts:
        for entry in zipped.infolist():
            try:
                name = ClipName.parse(entry.filename)
            except ValueError:
                continue
            wanted = name.actor == actor and name.modality == MODALITY and not entry.is_dir()
            if wanted and name not in taken and PurePosixPath(entry.filename).suffix.lower() == ".mp4":
                taken.add(name)
                with open_entry(zipped, entry, CLIP_BYTES) as clip:
                    shutil.copyfileobj(clip, drafts.enter_context(replacing(target / f"{name}.mp4", "wb")))
        if not taken:
            raise zipfile.BadZipFile(f"it holds no clip of actor {actor:02d}")
