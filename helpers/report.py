"""`make report` and `make publish`: run the notebooks in order over a folder of clips, and put a run's results on show.

`python -m helpers.report` executes copies of the notebooks into the run's folder and changes no tracked file; with
names, `python -m helpers.report 01_preprocess 02_alexnet_train`, those alone.
`python -m helpers.report publish` (RUN in the environment) puts a run's results into the repository.
"""

import json
import os
import re
import shutil
import sys
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from helpers.rekognition import limit
from helpers.workspace import DRAWN, OLD, REPOSITORY, SAMPLE, UserError, alone, open_run, replacing, shown, weights

NOTEBOOKS = REPOSITORY / "notebooks"
WITHIN = "REPORT_RUNS_IN"  # an environment variable
MARKED = r"(<!-- begin {0} -->\n).*?(<!-- end {0} -->)"


def execute(path, target, say=print):
    """Execute a copy of a notebook, in the notebook's own folder, and keep it at `target` even if a cell fails.

    What a cell tagged "say" shows as Markdown is passed to `say` at once: what calls will cost, before they are made.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", coalesce_streams=True, record_timing=False,
        on_cell_executed=lambda cell, **_: _pass_on(cell, say),
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    try:
        client.execute()
    except CellExecutionError as problem:
        reason = problem.evalue if problem.ename == "UserError" else f"{problem.ename}: {problem.evalue}."
        raise UserError(f"{path.stem} stopped. {reason} (See {shown(target)}.)") from None
    except DeadKernelError:
        raise UserError(f"{path.stem} stopped. Its kernel died, most often for lack of memory.") from None
    finally:
        with replacing(target) as file:
            nbformat.write(notebook, file)


def _pass_on(cell, say):
    if "say" in cell.metadata.get("tags", []):
        for output in cell.outputs:
            if text := output.get("data", {}).get("text/markdown"):
                say(text.replace("**", ""))


def make_report():
    """Execute all notebooks for the run that the environment describes, and print its results."""
    run = open_run()
    weights()  # what is wrong with a setting is said now, and not after the first notebooks
    limit()
    print(f"{run.title}: clips from {shown(run.data)}, results to {shown(run.root)}/", flush=True)
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    run_notebooks(sorted(paths, key=lambda path: path.stem == "05_evaluate"), run)  # compares all
    metrics = json.loads((run.root / "metrics.json").read_text("utf-8"))
    print(f"\n{summary(metrics)}\n")
    if any("random trunk" in row["note"] for row in metrics["scores"]):
        print(
            "Random trunk: AlexNet ran without ImageNet's weights, so its scores are not those that the README shows."
        )
        print("Set WEIGHTS=imagenet where they can be downloaded, or WEIGHTS=file where they are.\n")
    for name, what in (
        ("report.md", "the tables and figures, to read"), ("imgs", "figures"), ("metrics.json", "numbers"),
        ("predictions", "a row a frame, for each model"), ("*.ipynb", "the executed notebooks"),
    ):  # fmt: skip
        print(f"  {shown(run.root / name):<40} {what}")


def run_notebooks(paths, run):
    """Execute notebooks one after another into a run's folder, and print how long each took.

    A second call for the same run waits for the first, and says so; one from within its notebooks does not.
    """
    if os.environ.get(WITHIN) == str(run.root):
        _run_notebooks(paths, run)
        return
    with alone(run.root):
        os.environ[WITHIN] = str(run.root)  # the kernels inherit it
        try:
            _run_notebooks(paths, run)
        finally:
            del os.environ[WITHIN]


def _run_notebooks(paths, run):
    for draft in run.root.rglob(".*.part"):  # half-written, by a run that was killed
        if time.time() - draft.stat().st_mtime > OLD:
            draft.unlink()
    for i, path in enumerate(paths, 1):
        print(f"[{i}/{len(paths)}] {path.stem} … ", end="", flush=True)
        start = time.monotonic()
        try:
            execute(path, run.path(path.name), lambda text: print(f"\n      {text} … ", end="", flush=True))
        finally:
            print(f"{time.monotonic() - start:.0f} s", flush=True)


def _notebook(name):
    if not (path := NOTEBOOKS / f"{name}.ipynb").exists():
        raise UserError(f"There is no notebook {name}: name it as notebooks/ has it, such as 01_preprocess.")
    return path


def summary(metrics):
    """The results as a table of plain text: model, split, frames, accuracy, macro recall."""
    lines = [f"{'model':<20}{'split':<8}{'frames':>8}{'accuracy':>10}{'macro recall':>14}  {metrics['data']}"]
    for row in metrics["scores"]:
        numbers = f"{row['frames']:>8}{row['accuracy']:>10.1%}{row['macro_recall']:>14.1%}"
        lines.append(f"{row['model']:<20}{row['split']:<8}{numbers}  {row['note']}".rstrip())
    return "\n".join(lines)


def publish(name, repository=REPOSITORY):
    """Put the figures of run `name` into imgs/, its tables into the README and, of the sample, its notebooks too."""
    run = open_run().root.parent / name
    if not (run / "metrics.json").exists():
        raise UserError(f"There is no finished run at {shown(run)}: make report first.")
    # Everything is checked before anything is changed.
    readme = (repository / "README.md").read_text("utf-8")
    report = (run / "report.md").read_text("utf-8")
    parts = re.findall(r"<!-- begin (\w+) -->", readme)
    for part in parts:
        if not (found := re.search(MARKED.format(part), report, re.S)):
            raise UserError(f"{shown(run / 'report.md')} has no part “{part}” for the README: make report first.")
        readme = re.sub(MARKED.format(part), found[0].replace("\\", r"\\"), readme, flags=re.S)
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    data = metrics["data"]
    if metrics["private"]:
        raise UserError(
            f"{shown(run)} shows {metrics['private']} files of data/new: empty that, and make report again."
        )
    notebooks = sorted(run.glob("[0-9][0-9]_*.ipynb")) if data == DRAWN else []
    for path in notebooks:
        stored, executed = (nbformat.read(p, as_version=4) for p in (repository / "notebooks" / path.name, path))
        if [c.source for c in stored.cells] != [c.source for c in executed.cells]:
            raise UserError(f"{path.stem} was changed after it was run: make report first.")

    figures = sorted((run / "imgs").glob("*.png"))
    (repository / "imgs").mkdir(exist_ok=True)
    for path, folder in [*((f, "imgs") for f in figures), *((n, "notebooks") for n in notebooks)]:
        shutil.copyfile(path, repository / folder / path.name)
    with replacing(repository / "README.md") as file:
        file.write(readme)
    print(f"From {shown(run)}: {len(figures)} figures, {len(parts)} parts of the README, {len(notebooks)} notebooks.")


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["publish"]:
            publish(os.environ.get("RUN") or SAMPLE.name)
        elif sys.argv[1:]:
            run_notebooks([_notebook(name) for name in sys.argv[1:]], open_run())
        else:
            make_report()
    except (UserError, OSError) as problem:
        sys.exit(f"\n{problem}")
