"""What is required is used, what is used is required; exact versions; licences. Nothing here asks the network."""

import ast
import re
import sys
import sysconfig
from collections import Counter
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.workspace import REPOSITORY

ALL = "requirements.txt", "requirements-cluster.txt"
# Required, and neither imported nor called as a command
NOT_NAMED = {
    "face-recognition-models": "helpers/landmarks.py reads a file of it",
    "ipywidgets": "tqdm, which pooch's progress bar is too, draws with it in a notebook",
    "nbval": "pytest's --nbval-lax in pyproject.toml",
}
# Imported, and not required by itself: what brings it
BROUGHT = {
    "botocore": "boto3", "ipython": "ipywidgets", "mistune": "jupyterlab", "nbformat": "nbclient",
    "packaging": "accelerate", "pytest": "pytest-xdist",
}  # fmt: skip
exact = pytest.mark.skipif(
    not Path(sys.prefix, "installed-constraints.txt").exists(), reason="needs the environment that make installs"
)

SHORT = (  # how metadata write a licence, and how SPDX does where they say enough
    (r"Apache( Software License| License,? (Version )?2\.0| 2\.0)?", "Apache-2.0"),
    (r"BSD ([23])-Clause License", r"BSD-\1-Clause"),
    (r"BSD License", "BSD"),
    (r"Boost Software License( 1\.0.*)?", "BSL-1.0"),
    (r"(MIT|ISC) [Ll]icense( \(ISCL\))?", r"\1"),
    (r"Mozilla Public License 2\.0 \(MPL 2\.0\)", "MPL-2.0"),
    (r"PSFL|Python Software Foundation License", "PSF-2.0"),
    (r"(LicenseRef-)?NVIDIA[- ]Proprietary( Software)?", "NVIDIA"),
)
FINE = re.compile(
    r"0?BSD(-[23]-Clause)?|MIT(-0|-CMU)?|HPND|Apache-2\.0( WITH LLVM-exception)?|ISC|MPL-2\.0|PSF-2\.0|Zlib|CC0-1\.0"
    r"|Unlicense|BSL-1\.0"
)


def requirements(*names):
    """The requirements in files; of "requirements.txt" the whole, of "Colab" its part above the empty line."""
    lines = []
    for name in names:
        text = (REPOSITORY / ("requirements.txt" if name == "Colab" else name)).read_text("utf-8")
        lines += (text.split("\n\n")[0] if name == "Colab" else text).splitlines()
    return [Requirement(line) for line in (line.partition("#")[0].strip() for line in lines) if line]


def names(needs):
    return {canonicalize_name(need.name) for need in needs}


def needed(needs):
    """{name: Distribution} of requirements and all that they need on this machine."""
    found, todo, seen = {}, list(needs), set()
    while todo:
        need = todo.pop()
        name = canonicalize_name(need.name)
        if (name, *sorted(need.extras)) in seen:
            continue
        seen.add((name, *sorted(need.extras)))
        found[name] = distribution(name)
        others = [Requirement(text) for text in found[name].requires or ()]
        extras = ("", *need.extras)
        todo += [o for o in others if not o.marker or any(o.marker.evaluate({"extra": extra}) for extra in extras)]
    return found


def trees(*folders):
    """The syntax trees of all modules and of the notebooks' cells in folders; colab_standin's stand in for Colab's."""
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if "colab_standin" not in path.parts:
                yield ast.parse(path.read_text("utf-8"))
        for path in sorted((REPOSITORY / folder).glob("*.ipynb")):
            for cell in nbformat.read(path, as_version=4).cells:
                if cell.cell_type == "code":
                    yield ast.parse(re.sub(r"^(\s*)[!%].*", r"\1pass", cell.source, flags=re.M))


def imported(*folders):
    """The packages, by the names that they are installed under, that the modules and notebooks in folders import."""
    modules = set()
    for node in (node for tree in trees(*folders) for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            modules.add(ast.literal_eval(node.args[0]))
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    tops -= {"helpers", "tests", "google"}  # google.colab is on Colab's own machines alone
    installed = {"dlib": ["dlib-bin"], **packages_distributions()}  # whose metadata do not say so
    return {canonicalize_name(installed.get(top, [top])[0]) for top in tops}


def test_every_requirement_is_used():
    commands = set(re.findall(r"-m (\w+)", (REPOSITORY / "Makefile").read_text("utf-8")))
    for node in (node for tree in trees("tests") for node in ast.walk(tree)):
        if isinstance(node, ast.List) and node.elts:  # as ["ruff", "check", "."]
            commands.add(getattr(node.elts[0], "value", None))
    unused = names(requirements(*ALL)) - imported("helpers", "notebooks", "tests") - commands
    assert unused == set(NOT_NAMED)


def test_every_package_that_is_imported_is_required():
    others = imported("helpers", "notebooks", "tests") - names(requirements(*ALL))
    assert others == set(BROUGHT)
    for name, by in BROUGHT.items():
        assert by in names(requirements(*ALL)) and name in needed([Requirement(by)]), name
    # and on Colab there is only what stands above the empty line
    assert imported("helpers", "notebooks") <= set(needed(requirements("Colab")))


def test_constraints_are_exact_versions():
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()[1:]
    assert all(re.fullmatch(r"[\w.-]+==\d[\w.+]*", line) for line in lines) and len(lines) > 100
    assert lines == sorted(set(lines), key=str.lower)


@exact
def test_all_that_is_needed_is_there_in_the_version_that_constraints_name():
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()[1:]
    versions = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    here = {name: found.version.partition("+")[0] for name, found in needed(requirements(*ALL)).items()}
    assert {name: versions.get(name) for name in here} == here


def licence(found):
    """A package's licence as its metadata say it, in SPDX's words; "" if that is none that is known to be fine."""
    said = found.metadata
    marks = (text.removeprefix("License :: OSI Approved :: ") for text in said.get_all("Classifier", ()))
    marks = sorted(mark for mark in marks if "License" in mark and "::" not in mark)
    for text in (said.get("License-Expression"), said.get("License"), " OR ".join(marks)):
        if text and "\n" not in text and text not in ("UNKNOWN", "Dual License"):
            break  # the first that is a name, and not a whole text
    parts = re.split(r" (AND|OR) ", text or "")
    for pattern, short in SHORT:
        parts = [re.sub(rf"^(?:{pattern})$", short, part) for part in parts]
    nvidia = found.name.startswith(("nvidia-", "cuda-"))
    if nvidia and parts in ([""], ["NVIDIA"]):  # cuda-toolkit is no more than a list of the others
        return "NVIDIA"
    return " ".join(parts) if all(FINE.fullmatch(part) for part in parts[::2]) else ""


@exact
def test_licences_are_fine_and_those_of_the_requirements_stand_in_the_table():
    licences = {name: licence(found) for name, found in needed(requirements(*ALL)).items()}
    assert all(licences.values()), sorted(name for name in licences if not licences[name])
    text = (REPOSITORY / "data" / "README.md").read_text("utf-8").partition("## Licences of what is installed")[2]
    table = {}
    for name, packages in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.M)[2:]:
        table |= dict.fromkeys(packages.split(", "), name)
    direct = names(requirements(*ALL))
    assert table == {name: licences[name] for name in direct}
    if sys.version_info[:2] == (3, 11) and sysconfig.get_platform() == "linux-x86_64":  # elsewhere they are others
        others = [re.split(r" (?:AND|OR) ", licences[name]) for name in licences if name not in direct]
        counts = Counter("several of these" if parts[1:] else parts[0].partition("-")[0] for parts in others)
        in_words = ", ".join(f"{n} {family}" for family, n in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
        assert f"{len(others)} others: {in_words}." in " ".join(text.split())
