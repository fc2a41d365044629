"""Images bent from the good one, and the verdicts of both verbs on an image."""

import logging
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from docker import DockerClient

from builder.audit import run as audit
from builder.model.finding import Finding
from builder.model.pins import Kv, Pins
from builder.smoke.options import Options
from builder.smoke.run import PROFILE, smoke_image
from tests.conftest import ROOT, Recorder
from tests.faults.catalogue import SLOT_TOKENS, Fault, Source, Verb, dockerfile

FOLDER = Path(__file__).parent

Verdicts = dict[str, str]
Ask = Callable[[Verb, str], Verdicts]
Good = Callable[[Source, Verb], Verdicts]


@pytest.fixture(scope="session")
def ask(engine: DockerClient, real_pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """What a verb says of an image: its rows, each with its status."""
    results = tmp_path_factory.mktemp("results")
    # A slot of the smoke's own profile takes seconds to fill, three times for each fault.
    pins = replace(real_pins, profiles={"short": replace(PROFILE, slot_tokens=SLOT_TOKENS)})

    def smoke(image: str) -> Verdicts:
        options = Options(profile="short", kv=Kv("q4_0", "q4_0"))
        report = smoke_image(engine, image, pins, options, results, Recorder())
        return verdicts(report.findings)

    def audited(image: str) -> Verdicts:
        report = audit.audit(engine, image, real_pins, results=ROOT, progress=Recorder())
        return verdicts(report.findings)

    return lambda verb, image: {"smoke": smoke, "audit": audited}[verb](image)


def verdicts(findings: list[Finding]) -> Verdicts:
    """Each row with its status; pytest shows the log of a test that failed."""
    for finding in findings:
        logging.getLogger(__name__).warning("%s", finding)
    return {finding.probe: finding.status for finding in findings}


@pytest.fixture(scope="session")
def good(engine: DockerClient, mainline_cpu_image: str, ask: Ask) -> Good:
    """What a verb says of an image that no fault was put into, asked once."""
    known: dict[tuple[Source, Verb], Verdicts] = {}

    def asked_once(source: Source, verb: Verb) -> Verdicts:
        if (source, verb) not in known:
            with built(engine, mainline_cpu_image, f"{source}-unbent", dockerfile(source)) as image:
                known[source, verb] = ask(verb, image)
        return known[source, verb]

    return asked_once


@pytest.fixture
def bent(engine: DockerClient, mainline_cpu_image: str, fault: Fault) -> Iterator[str]:
    """The fault's image."""
    text = dockerfile(fault.source, fault.lines, fault.library)
    with built(engine, mainline_cpu_image, fault.name, text) as image:
        yield image


@contextmanager
def built(engine: DockerClient, base: str, name: str, text: str) -> Iterator[str]:
    """An image of this Dockerfile, gone at the end. Its layers stay in the build cache."""
    words = re.findall(r"\w+", name)
    tag = f"turboquant-faults:{'-'.join(words)}"
    command = ["docker", "buildx", "build", "--quiet", "--provenance=false", "--load", "--tag", tag]
    command += [f"--build-arg=IMAGE={base}", "--file=-", str(FOLDER)]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    try:
        yield tag
    finally:
        engine.images.remove(tag, force=True)
