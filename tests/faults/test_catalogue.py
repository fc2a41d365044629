"""The catalogue as a whole: what was promised, and what README.md says of it."""

from collections import Counter

from tests.conftest import ROOT
from tests.faults.catalogue import FAULTS, matrix


def test_readme_prints_the_matrix() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("<!-- faults -->\n")
    assert rest.partition("\n<!-- /faults -->")[0] == matrix()


def test_no_two_faults_are_one() -> None:
    changes = Counter((fault.source, fault.lines, fault.library) for fault in FAULTS)
    assert [change for change, count in changes.items() if count > 1] == []
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_most_faults_are_bent_from_the_image() -> None:
    # The proxy's answers are not the image's own.
    assert sum(fault.source != "proxy" for fault in FAULTS) >= 14
