"""Whether the image holds device code for the pinned GPUs, and for no others."""

from builder.fatbin import Code, Unit
from builder.image_tree import File
from builder.probe.finding import Finding
from builder.rule.subject import Pinned, Subject, compiled, some, unproven, verdict_on

DEVICE_CODE = "device_code"


def device_code(subject: Subject) -> Finding:
    """Whether each translation unit that we compiled has code for every pinned architecture.

    That is SASS of it, or PTX that becomes it; and nothing that none of them runs. Where cuBLAS is
    linked in its units lie among ours, and some of its kernels exist only as older code that runs
    there too: there each architecture must be in some unit.
    """
    files = compiled(subject)
    held = sorted({code for _, unit in _units(files) for code in unit})
    found = some(str(code) for code in held) or "no device code"
    if isinstance(subject.pinned, str):
        return unproven(
            DEVICE_CODE, "device code for the pinned architectures", f"{subject.pinned}; {found}"
        )
    unread = [file.path for file in files if file.elf is not None and file.elf.units is None]
    expected = _expected(subject.pinned)
    if unread or not files:
        what = some(unread) or "any file that we compiled"
        return unproven(DEVICE_CODE, expected, f"cannot read {what}")
    pinned = _pinned(subject.pinned)
    faults = [f"{code} runs on none of them" for code in held if not _wanted(code, pinned)]
    pruned = subject.pinned.variant.cublas == "pruned"
    faults += [fault for one in pinned if (fault := _lacking(files, one, linked=pruned))]
    units = [unit for _, unit in _units(files)]
    good = f"{found} in {len(units)} units" if units else found
    older = sum(1 for unit in units if not any(c.is_for(one) for c in unit for one in pinned))
    if older:
        good += f"; {older} of them hold only older code that runs there: cuBLAS is linked in"
    return verdict_on(DEVICE_CODE, faults, expected=expected, good=good)


def _expected(pinned: Pinned) -> str:
    names = pinned.variant.architectures
    if not names:
        return "no device code"
    linked = pinned.variant.cublas == "pruned"
    older = " but older code that runs there, in the linked cuBLAS" if linked else ""
    return f"device code for {', '.join(names)} and nothing else{older}"


def _pinned(pinned: Pinned) -> list[int]:
    """The architectures as numbers: 120 for "120a" too, whose code runs there."""
    return [int(name.rstrip("af")) for name in pinned.variant.architectures]


def _units(files: list[File]) -> list[tuple[File, Unit]]:
    return [(file, unit) for file in files if file.elf for unit in file.elf.units or ()]


def _wanted(code: Code, pinned: list[int]) -> bool:
    return any(code.runs_on(architecture) for architecture in pinned)


def _lacking(files: list[File], architecture: int, *, linked: bool) -> str | None:
    """What is wrong with the units of one architecture, or None.

    `linked`: units of cuBLAS, which may lack it, lie among ours, and nothing tells them apart.
    """
    units = _units(files)
    without = [f for f, unit in units if not any(code.is_for(architecture) for code in unit)]
    if not units:
        return f"no device code at all, none for {architecture}"
    if not without or (linked and len(without) < len(units)):
        return None
    where = some(sorted({file.path for file in without}))
    return f"nothing for {architecture} in {len(without)} of {len(units)} units of {where}"
