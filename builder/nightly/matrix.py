"""The jobs of a nightly workflow: one a variant, in the shape that GitHub's matrix takes."""

import json
from dataclasses import asdict, dataclass

from builder.model.pins import Pins

RUNNER = "ubuntu-24.04"
"""The runner of GitHub's own: two to four cores, and no GPU."""


@dataclass(frozen=True, slots=True)
class Job:
    """One variant. `runner` is the label of the machine, `gpu` whether a GPU is expected there."""

    variant: str
    fork: str
    runner: str
    gpu: bool


def jobs(everything: Pins, names: list[str], gpu_runner: str | None) -> list[Job]:
    """A job for each of these variants; those with CUDA run on `gpu_runner` where there is one."""
    found = []
    for name in names:
        variant = everything.variants[name]
        gpu = bool(gpu_runner) and everything.bases[variant.base].cuda is not None
        found.append(Job(name, variant.fork, gpu_runner if gpu and gpu_runner else RUNNER, gpu))
    return found


def to_json(found: list[Job]) -> str:
    """One line, for `strategy.matrix` and $GITHUB_OUTPUT: {"include": [...]}.

    A key beside `include` would be taken for a dimension:
    https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstrategymatrixinclude
    """
    return json.dumps({"include": [asdict(one) for one in found]})
