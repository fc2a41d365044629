"""What the server says of itself, without a model."""

import re

from builder.audit.rules.labels import of_other_pins
from builder.audit.rules.subject import Subject, unproven, verdict_on
from builder.git import commits
from builder.image.files import Printed
from builder.llama.printed import commit, offered
from builder.model.finding import Finding
from builder.model.labels import KV_TYPES as LABEL_OF_TYPES
from builder.model.labels import REVISION
from builder.model.pins import MAINLINE_KV_TYPES

KV_TYPES = "kv_types"
VERSION = "version"

_NO_DRIVER = re.compile(r"lib(cuda|nvidia-[\w-]+)\.so[.\d]*: cannot open shared object file")
_SHOWN = 160


def kv_types(subject: Subject) -> Finding:
    """Whether `--help` lists the variant's KV types, for K and for V."""
    expected = "--help lists the variant's KV types"
    if isinstance(subject.pinned, str):
        return unproven(KV_TYPES, expected, subject.pinned)
    if finding := _silent(KV_TYPES, expected, "--help", subject.help):
        return finding
    # What was made from other pins has the types that these had: its label says which.
    label = subject.config.labels.get(LABEL_OF_TYPES, "")
    own = filter(None, label.split(",")) if of_other_pins(subject) else subject.pinned.fork.kv_types
    wanted = [*own, *MAINLINE_KV_TYPES]
    expected = f"--help lists {', '.join(wanted)}"
    listed = offered(subject.help.text)
    faults = [
        f"-ct{half} does not offer {name}"
        for half in ("k", "v")
        for name in wanted
        if name not in listed.get(half, ())
    ]
    return verdict_on(KV_TYPES, faults, expected=expected, good=", ".join(listed.get("k", ())))


def version(subject: Subject) -> Finding:
    """Whether `--version` names the commit of the label."""
    revision = subject.config.labels.get(REVISION, "")
    expected = f"--version names commit {revision[:9]}" if revision else "--version names a commit"
    if finding := _silent(VERSION, expected, "--version", subject.version):
        return finding
    said = commit(subject.version.text)
    if said is not None and not revision:
        return unproven(VERSION, expected, f"it names {said}, and no label does")
    same = said is not None and commits.same(revision, said)
    faults = [] if same else [f"it names {said or 'none'}: {_shown(subject.version.text)}"]
    return verdict_on(VERSION, faults, expected=expected, good=f"it names {said}")


def _silent(rule: str, expected: str, argument: str, printed: Printed) -> Finding | None:
    """The finding on a server that did not print what was asked for; None when it did."""
    if printed.exit_code == 0:
        return None
    if _NO_DRIVER.search(printed.text):
        return unproven(rule, expected, "the server starts only beside an NVIDIA driver")
    how = "does not start" if printed.exit_code is None else f"exits {printed.exit_code}"
    return verdict_on(
        rule, [f"{argument} {how}: {_shown(printed.text)}"], expected=expected, good=""
    )


def _shown(text: str) -> str:
    """The last line, cut short."""
    lines = text.strip().splitlines() or ["it prints nothing"]
    return lines[-1][:_SHOWN]
