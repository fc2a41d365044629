"""`builder try`: from a bare machine to an image that was built, served and asked."""

from pathlib import Path

from builder.build import run as build
from builder.common.progress import Progress
from builder.doctor import checks as doctor
from builder.engine import client as engine
from builder.model.pins import Pins, Receipt
from builder.smoke import run as smoke
from builder.smoke.options import Options
from builder.smoke.report import SmokeReport

VARIANT = "mainline-cpu"


def run(pins: Pins, results: Path, progress: Progress) -> tuple[Receipt, SmokeReport]:
    """Install what is missing, build mainline-cpu, smoke its image.

    Raises what `doctor.fix`, `build.build` and `smoke.smoke_image` raise.
    """
    doctor.fix(doctor.plan_fix(), progress)
    receipt = build.build(pins, build.Request(VARIANT), results, progress)
    report = smoke.smoke_image(engine.connect(), receipt.image, pins, Options(), results, progress)
    return receipt, report


def next_steps(pins: Pins, report: SmokeReport) -> str:
    """What was proven, what was not, and what to run for CUDA."""
    proven = [one.probe for one in report.findings if one.status == "pass"]
    unproven = [one.probe for one in report.findings if one.status == "unproven"]
    default = pins.policy.default_variant
    return f"""
Proven here: {", ".join(proven) or "nothing"}.
Not proven here: {", ".join([*unproven, "turbo4 (mainline has none; it takes a fork and a GPU)"])}.

Next, for a GPU:
  builder doctor                  what this machine lacks for {default}
  builder build --ref master      the newest commit of its fork
  builder smoke turboquant:{default}"""
