"""When the distributions under base images get no more security updates.

From `debian.csv` and `ubuntu.csv` (column `eol`: the regular end, without LTS or ESM) of Debian's
package distro-info-data 0.58+deb12u7. No dates of NVIDIA's for CUDA images are known here: such an
image counts as the Ubuntu that its tag names.
"""

import datetime

_ENDS = {
    ("debian", "bookworm"): datetime.date(2026, 7, 11),
    ("debian", "trixie"): datetime.date(2028, 8, 9),
    ("ubuntu", "focal"): datetime.date(2025, 5, 29),
    ("ubuntu", "20.04"): datetime.date(2025, 5, 29),
    ("ubuntu", "jammy"): datetime.date(2027, 6, 1),
    ("ubuntu", "22.04"): datetime.date(2027, 6, 1),
    ("ubuntu", "noble"): datetime.date(2029, 5, 31),
    ("ubuntu", "24.04"): datetime.date(2029, 5, 31),
}


def end_of_life(image: str) -> datetime.date | None:
    """The last day of updates for the distribution in an image's name and tag; None: not known."""
    name = image.partition("@")[0].rpartition("/")[2]
    words = name.replace(":", "-").split("-")
    for (distribution, release), end in _ENDS.items():
        if f"{distribution}{release}" in words or {distribution, release} <= set(words):
            return end
    return None
