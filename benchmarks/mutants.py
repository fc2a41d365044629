"""Bend lines of the modules that give verdicts, and see whether their own tests notice.

    python -m benchmarks.mutants [--each 40] [MODULE…]

`mutants.toml` beside this names the modules, each with its quick tests, and the mutants that no
test can see, each with its reason. Works in a copy of the tree, one test at a time. Exits 1 when a
mutant survives that is not listed there.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".toml")
EACH = 40
"""Mutants a module, unless told: the same ones until its lines change."""

_TIMEOUT_S = 120.0
_RUN = "nice -n 19 {python} -m pytest -q -x -p no:cacheprovider {tests}"


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no test noticed: the line as it was, and as it became."""

    module: str
    place: str
    before: str
    after: str


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--each", type=int, default=EACH, help="mutants a module")
    parser.add_argument("modules", nargs="*", help="as builder/llama/gguf/fit.py; none: all")
    asked = parser.parse_args(words)
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    equal = {(one["module"], one["before"], one["after"]) for one in listed["equal"]}
    modules = asked.modules or [*listed["modules"]]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        _copy_tree(Path(folder))
        os.chdir(folder)
        # Before the editable installation of the tree itself.
        os.environ["PYTHONPATH"] = folder
        for module in modules:
            found += _survivors(module, listed["modules"][module], asked.each)
    new = [one for one in found if (one.module, one.before, one.after) not in equal]
    print(f"{len(found)} survived, {len(new)} of them not listed in {LIST.name}")
    return 1 if new else 0


def _copy_tree(folder: Path) -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _survivors(module: str, tests: Sequence[str], most: int) -> list[Survivor]:
    command = _RUN.format(python=sys.executable, tests=" ".join(tests))
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)
    chosen = _sample(Path(module), most)
    found = []
    for mutation in chosen:
        result = mutate_and_test([mutation], command, _TIMEOUT_S)
        if result.test_outcome != TestOutcome.KILLED:
            one = _survivor(module, mutation, result.diff or "")
            print(f"{one.place}\n  - {one.before}\n  + {one.after}", flush=True)
            found.append(one)
    print(f"{module}: {len(chosen) - len(found)} of {len(chosen)} noticed", flush=True)
    return found


def _sample(module: Path, most: int) -> list[MutationSpec]:
    """The same mutants in each run, spread over the module by the hash of line and operator."""
    text = module.read_text(encoding="utf-8")
    lines, passed_over = text.splitlines(), {*_lines_of_types(ast.parse(text))}

    def order(one: MutationSpec) -> str:
        line = lines[one.start_pos[0] - 1]
        return hashlib.sha256(f"{line}{one.start_pos[1]}{one.operator_name}".encode()).hexdigest()

    every = [item.mutations[0] for item in _all_work_items([module], {})]
    kept = [
        one
        for one in every
        if one.start_pos[0] not in passed_over
        and not _is_alike(one.operator_name, lines[one.start_pos[0] - 1])
    ]
    return sorted(kept, key=order)[:most]


def _is_alike(operator: str, line: str) -> bool:
    """Whether a comparison of words was changed into one that is the same for all that occur."""
    kind, _, made = operator.rpartition("_")
    if made in {"Is", "IsNot"} and "None" not in line:
        return True
    ordered = made in {"Lt", "LtE", "Gt", "GtE"} and kind.endswith(("_Eq", "_NotEq"))
    return ordered and re.search(r"[!=]= [\"']", line) is not None


def _lines_of_types(tree: ast.AST) -> Iterator[int]:
    """Lines of annotations, imports and decorators, where a mutant is no other verdict."""
    for node in ast.walk(tree):
        types = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            types = [*node.decorator_list, *([node.returns] if node.returns else [])]
        elif isinstance(node, ast.ClassDef):
            types = [*node.decorator_list]
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            types = [node.annotation]
        for one in types:
            yield from range(one.lineno, (one.end_lineno or one.lineno) + 1)


def _survivor(module: str, mutation: MutationSpec, diff: str) -> Survivor:
    lines = diff.splitlines()
    before = [line[1:].strip() for line in lines if line[:1] == "-" and line[:3] != "---"]
    after = [line[1:].strip() for line in lines if line[:1] == "+" and line[:3] != "+++"]
    place = f"{module}:{mutation.start_pos[0]}"
    return Survivor(module, place, " ".join(before), " ".join(after))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
