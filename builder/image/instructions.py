"""Which extensions of the x86-64 instruction set a piece of machine code needs (by iced-x86)."""

import functools
from collections.abc import Mapping

UNDECODED = "undecoded"
"""In place of an extension: bytes that are no instruction."""

ASKS = "CPUID"
"""The extension whose one instruction asks the CPU what it can do."""

# What every CPU does with these bytes, whether it knows the extension or not: `tzcnt` is `rep bsf`,
# which gcc writes where both give the same; CET's are no-ops; `xgetbv` is how one asks for AVX.
_HARMLESS = frozenset({"tzcnt", "endbr32", "endbr64", "rdsspd", "rdsspq", "xgetbv"})


def extensions(code: bytes) -> dict[str, str]:
    """The extensions that machine code needs, by iced-x86's names, each with one instruction.

    The code is read from its first byte to its last, as compilers lay it out: without data in it.
    """
    from operator import attrgetter

    from iced_x86 import Decoder

    names = _names()
    found: dict[str, str] = {}
    for one in sorted(set(map(attrgetter("code"), Decoder(64, code)))):
        instruction, needed = names[one]
        for extension in needed:
            found.setdefault(extension, instruction)
    return found


@functools.cache
def _names() -> Mapping[int, tuple[str, tuple[str, ...]]]:
    """iced-x86's number of an instruction → its name and what a CPU must have for it."""
    from iced_x86 import Code, CpuidFeature, Instruction, Mnemonic

    features = {value: name for name, value in vars(CpuidFeature).items() if isinstance(value, int)}
    mnemonics = {value: name for name, value in vars(Mnemonic).items() if isinstance(value, int)}
    known: dict[int, tuple[str, tuple[str, ...]]] = {}
    for code in vars(Code).values():
        if isinstance(code, int):
            instruction = Instruction()
            instruction.code = code  # type: ignore[assignment]
            name = mnemonics[instruction.mnemonic].lower()
            needed = tuple(features[one] for one in instruction.cpuid_features())
            known[code] = (name, () if name in _HARMLESS else needed)
    known[Code.INVALID] = ("(bad)", (UNDECODED,))
    return known
