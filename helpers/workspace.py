"""Where things lie, and the few settings: each can be set in the environment.

DATA     a folder of clips, `Actor_NN/*.mp4`; without it `data/ravdess` if clips are there (or frames of clips that
         were), else `data/sample`
RUNS     the folder that runs are written to; without it `data/runs`
WEIGHTS  AlexNet's convolutions: `imagenet` (also without it), `none` for random ones, or a file that holds them

Relative paths are meant from the repository's top.
"""

import contextlib
import errno
import hashlib
import logging
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE, RAVDESS = REPOSITORY / "data" / "sample", REPOSITORY / "data" / "ravdess"
DRAWN = "drawn sample"  # what figures and tables call it
SEED = 2020


class UserError(RuntimeError):
    """Something the user can put right: one sentence says what, where and what to do. Notebooks show it bare."""

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Run:
    """One run over one folder of clips; everything it makes lies below `root`."""

    data: Path
    root: Path

    @property
    def name(self):
        return self.root.name

    @property
    def title(self):
        """The data by name, as figures and tables give it."""
        name = shown(self.data.name).replace("-", " ")
        name = f"folder “{name}”" if name == DRAWN else name
        return {SAMPLE: DRAWN, RAVDESS: "RAVDESS"}.get(self.data, name)

    def path(self, *parts):
        """A path below the run, its folder made."""
        path = self.root.joinpath(*parts)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def need(self, *parts, notebook):
        """The path of something an earlier notebook wrote; UserError names that notebook if it is not there."""
        path = self.root.joinpath(*parts)
        if not path.exists():
            raise UserError(f"{shown(path)} is not there yet: run {notebook} first (with the same DATA and RUNS).")
        return path


def open_run():
    """The run that the environment describes."""
    ravdess = ravdess_run()
    here = any(RAVDESS.glob("Actor_*/*.mp4")) or (ravdess.root / "dropped.txt").exists()
    data = _path("DATA") or (RAVDESS if here else SAMPLE)
    if not data.is_dir() and data != RAVDESS:  # whose clips may have been dropped once they were cut
        raise UserError(f"There is no folder of clips at {data}: point DATA at one that holds Actor_NN/*.mp4.")
    return Run(data, runs() / data.name)


def ravdess_run():
    """The run over RAVDESS, whether its clips are there yet or not."""
    return Run(RAVDESS, runs() / RAVDESS.name)


def runs():
    """The folder that runs are written to."""
    return _path("RUNS") or REPOSITORY / "data" / "runs"


def weights():
    """`"imagenet"`, `"none"`, or the path of a file of weights; UserError if it is not there."""
    value = os.environ.get("WEIGHTS") or "imagenet"
    if value in ("imagenet", "none"):
        return value
    path = _path("WEIGHTS")
    if not path.is_file():
        raise UserError(f"There is no file of weights at {shown(path)}: set WEIGHTS to imagenet, none or a file.")
    return path


def _path(variable):
    value = os.environ.get(variable)
    # A notebook runs in its own folder, make at the top: relative paths are meant from the top in both.
    return (REPOSITORY / Path(value).expanduser()).resolve() if value else None


def versions(*packages):
    """The versions of Python and of some packages, in a line, to print at the top of a notebook."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def shown(path):
    """A path as it is shown to a reader: from the repository's top where it lies inside."""
    path = Path(path)
    text = path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else str(path)
    return os.fsencode(text).decode("utf-8", "replace")  # a name's bytes need not be a text


def content(path):
    """The SHA-256 of a file's bytes, in hexadecimal; UserError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as problem:
        raise UserError(f"{shown(path)} cannot be read ({problem.strerror}): run 01_preprocess again.") from None


OLD = 3600  # seconds after which a draft cannot be one that is still being written
REFUSALS = {  # a full disk, one that may only be read, no permission, something else in the place of a folder
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR,
    errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


@contextlib.contextmanager
def writing(path):
    """What the system refuses while something is written (`REFUSALS`), as one sentence."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in REFUSALS:
            raise
        raise UserError(
            f"{shown(path)} cannot be written ({problem.strerror}): see that the disk has room and that you may write "
            "there, then run this again, and it goes on."
        ) from problem


@contextlib.contextmanager
def alone(file):
    """Hold the lock of a file; whoever else holds it is waited for, which is said. A killed process holds none."""
    from filelock import FileLock, Timeout  # here, since helpers/colab.py comes before anything is installed

    lock = FileLock(file.with_name(f".{file.name}.lock"))
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if has_locks := _has_locks(Path(lock.lock_file)):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning("Another process is at work on %s: waiting until it is done.", shown(file))
                lock.acquire()
        else:
            log.warning("%s lies where nothing can be locked: do not start two runs there at once.", shown(file))
    try:
        yield
    finally:
        if has_locks:
            lock.release()


def _has_locks(path):
    """Whether the file system knows locks; filelock would wait for ever where some network file systems do not."""
    try:
        import fcntl
    except ImportError:  # Windows, where all do
        return True
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def write_table(path, table):
    """Write a DataFrame as CSV, whole or not at all."""
    with replacing(path) as file:
        table.to_csv(file, index=False)


@contextlib.contextmanager
def replacing(path, mode="w"):
    """Open a file that takes its name only once it is whole, so that a half-written one never looks finished."""
    path = Path(path)
    short = os.fsdecode(os.fsencode(path.name)[:200])  # of the 255 bytes that a name may have
    draft = path.with_name(f".{short}.{os.getpid()}.part")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, mode, encoding=encoding, newline=newline) as file:
                yield file
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
