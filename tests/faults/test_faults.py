"""Every fault is caught by the row that is for it; no other row is disturbed, and no good image."""

import pytest

from tests.faults.catalogue import FAULTS, SOURCES, Fault, Source
from tests.faults.conftest import Ask, Good

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_caught_and_nothing_else_is_disturbed(
    fault: Fault, bent: str, good: Good, ask: Ask
) -> None:
    for verb in fault.verbs:
        found, expected = ask(verb, bent), good(fault.source, verb) | fault.expected(verb)
        if found.get(fault.by_luck) == "unproven":
            expected = expected | {fault.by_luck: "unproven"}
        assert found == expected


@pytest.mark.parametrize("source", SOURCES)
def test_no_alarm_is_given_where_no_fault_is(source: Source, good: Good) -> None:
    others = {row: status for row, status in good(source, "smoke").items() if status != "pass"}
    assert others == {"offload": "unproven"}


def test_the_audit_gives_no_alarm_on_the_image(good: Good) -> None:
    assert set(good("image", "audit").values()) == {"pass"}
