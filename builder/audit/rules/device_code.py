"""Whether the image holds device code for the pinned GPUs, and for no others."""

from collections.abc import Iterator
from dataclasses import dataclass

from builder.audit.rules.labels import of_other_pins
from builder.audit.rules.subject import Pinned, Subject, compiled, some, unproven, verdict_on
from builder.image.fatbin import Code, Unit
from builder.image.tree import File
from builder.model.finding import Finding
from builder.model.labels import ARCHITECTURES, CUBLAS, CUDA, RECIPE

DEVICE_CODE = "device_code"

# Seen with CUDA 12.4 alone: there fatbin.Code.short_header tells cuBLAS's units from nvcc's.
_TOLD_APART = "12.4."
# cuBLAS has under 300 units for an architecture, llama.cpp over 100 in each of ours.
_LEAST_SHARE = 0.1

_Placed = tuple[File, Unit]


def device_code(subject: Subject) -> Finding:
    """Whether each translation unit that we compiled has code for every pinned architecture.

    That is SASS, made for just that architecture: PTX is compiled by the driver at the first start,
    for minutes, and older code runs without what the newer GPU can do. Nothing may be there that
    no pinned GPU runs. Where cuBLAS is linked in its units lie among ours, and some of its kernels
    exist only as older code that runs there too.
    """
    files = compiled(subject)
    units = [(file, unit) for file in files if file.elf for unit in file.elf.units or ()]
    held = sorted({code for _, unit in units for code in unit})
    found = some(str(code) for code in held) or "no device code"
    if isinstance(subject.pinned, str):
        return unproven(
            DEVICE_CODE, "device code for the pinned architectures", f"{subject.pinned}; {found}"
        )
    expected = _expected(subject.pinned)
    if other := _other(subject, subject.pinned):
        return unproven(DEVICE_CODE, expected, f"{other}; {found}")
    pinned = _architectures(subject.pinned)
    parts = _parts(units, pinned, _toolkit(subject, subject.pinned))
    faults = [f"{code} runs on none of them" for code in held if not _wanted(code, pinned)]
    unread = [file.path for file in files if file.elf is not None and file.elf.units is None]
    doubt = f"cannot read {some(unread) or 'any file that we compiled'}"
    if not unread and files:
        doubt = parts.doubt
        faults += _lacking(parts.ours, pinned) if not doubt else ()
    if doubt and not faults:
        return unproven(DEVICE_CODE, expected, doubt)
    good = f"{found} in {len(units)} units" if units else found
    older = sum(1 for unit in parts.linked if not any(_has(unit, one) for one in pinned))
    if older:
        good += f"; {older} of them hold only older code that runs there: cuBLAS is linked in"
    return verdict_on(DEVICE_CODE, faults, expected=expected, good=good)


def _other(subject: Subject, pinned: Pinned) -> str:
    """Why an image of other pins cannot be held against these; "" where its labels say the same."""
    labels = subject.config.labels
    own = labels.get(ARCHITECTURES, ""), labels.get(CUBLAS, "")
    now = ",".join(pinned.variant.architectures), pinned.variant.cublas if any(own) else ""
    return "" if own == now else of_other_pins(subject)


def _expected(pinned: Pinned) -> str:
    names = pinned.variant.architectures
    if not names:
        return "no device code"
    linked = pinned.variant.cublas == "pruned"
    older = " but older code that runs there, in the linked cuBLAS" if linked else ""
    return f"device code for {', '.join(names)} and nothing else{older}"


def _architectures(pinned: Pinned) -> list[int]:
    """The architectures as numbers: 120 for "120a" too, whose code runs there."""
    return [int(name.rstrip("af")) for name in pinned.variant.architectures]


def _toolkit(subject: Subject, pinned: Pinned) -> str | None:
    """The CUDA whose cuBLAS was linked in; None where none was.

    The recipe that the label names says which; where the pins do not know it, the label does.
    """
    if pinned.variant.cublas != "pruned":
        return None
    labels = subject.config.labels
    base = pinned.recipes.get(labels.get(RECIPE, ""))
    return base.cuda.version if base and base.cuda else labels.get(CUDA, "")


def _wanted(code: Code, pinned: list[int]) -> bool:
    return any(code.runs_on(architecture) for architecture in pinned)


def _has(unit: Unit, architecture: int) -> bool:
    return any(code.is_for(architecture) for code in unit)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The units that we compiled, those of the linked cuBLAS, and why they cannot be told apart."""

    ours: list[_Placed]
    linked: list[Unit]
    doubt: str = ""


def _parts(units: list[_Placed], pinned: list[int], toolkit: str | None) -> _Parts:
    """Whose the units are. `toolkit` is the CUDA whose cuBLAS was linked in; None: none was.

    Where the form of its code is not known, or no unit has it, a unit of ours is only certain by
    its place, for the linker puts object files before archives, and by numbers.
    """
    lacking = [unit for _, unit in units if not all(_has(unit, one) for one in pinned)]
    if toolkit is None or not lacking:
        return _Parts(units, [])
    linked = [unit for _, unit in units if _is_nvidias(unit)]
    if linked and toolkit.startswith(_TOLD_APART):
        return _Parts([one for one in units if not _is_nvidias(one[1])], linked)
    share = 1 - len(lacking) / len(units)
    if units[0][1] is lacking[0] or share < _LEAST_SHARE:
        return _Parts(units, [])
    few = f"{len(lacking)} of {len(units)} units lack one, and may be cuBLAS's or ours"
    return _Parts(units, [], few)


def _is_nvidias(unit: Unit) -> bool:
    return all(code.short_header for code in unit)


def _lacking(units: list[_Placed], pinned: list[int]) -> Iterator[str]:
    """What is wrong with the units that we compiled."""
    for architecture in pinned:
        without = [file for file, unit in units if not _has(unit, architecture)]
        if not units:
            yield f"no device code at all, none for {architecture}"
        elif without:
            where = some(sorted({file.path for file in without}))
            yield f"nothing for {architecture} in {len(without)} of {len(units)} units of {where}"
