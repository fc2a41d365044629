"""The search for the first bad commit, on every line that is short enough to try them all."""

import itertools
import math

import pytest

from builder.bisect.search import Position, Verdict, narrow


def search(size: int, first_bad: int, broken: frozenset[int] = frozenset()) -> tuple[Position, int]:
    """Follow a search to its end: where it stands then, and how many verdicts it took."""
    line = [str(number) for number in range(size)]
    verdicts: dict[str, Verdict] = {}
    while (position := narrow(line, verdicts)).next:
        assert position.next not in verdicts
        number = int(position.next)
        judged: Verdict = "bad" if number >= first_bad else "good"
        verdicts[position.next] = "skip" if number in broken else judged
    return position, len(verdicts)


@pytest.mark.parametrize("size", range(1, 40))
def test_the_first_bad_commit_is_found(size):
    assert [search(size, bad)[0].found for bad in range(size)] == [str(n) for n in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 63, 64, 65, 200])
def test_it_halves_what_is_left_and_confirms_the_end(size):
    halvings = math.ceil(math.log2(size))
    assert max(search(size, bad)[1] for bad in range(size - 1)) <= halvings if size > 1 else True
    assert search(size, size - 1)[1] <= halvings + 1


def test_sixty_four_commits_take_six_steps():
    assert {search(64, bad)[1] for bad in range(63)} == {6}


@pytest.mark.parametrize("size", range(1, 9))
def test_whatever_cannot_be_judged_the_answer_is_right(size):
    for first_bad in range(size):
        for count in range(size + 1):
            for broken in itertools.combinations(range(size), count):
                position, _ = search(size, first_bad, frozenset(broken))
                suspects = [int(one) for one in position.suspects]
                assert first_bad in suspects
                # All but the last of a range can't be judged: no verdict was left out.
                assert set(suspects[:-1]) <= set(broken)


def test_a_range_is_named_where_only_skipped_commits_are_left():
    position, _ = search(8, 4, frozenset({3, 4}))
    assert (position.suspects, position.found) == (("3", "4", "5"), None)


def test_a_bad_end_that_is_good_leaves_nobody():
    assert narrow(["a", "b"], {"b": "good"}) == Position((), None, None)


def test_a_bad_end_that_cannot_be_judged_is_not_called_found():
    assert narrow(["a"], {"a": "skip"}) == Position(("a",), None, None)


def test_a_block_of_broken_commits_is_left_quickly():
    # Its neighbours one by one would be 20 skips; half of the block must be enough by far.
    broken = frozenset(range(22, 42))
    assert max(search(64, bad, broken)[1] for bad in (0, 5, 10, 15, 50, 55, 60)) <= 12


@pytest.mark.parametrize(("size", "left"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (64, 6)])
def test_the_steps_that_are_left(size, left):
    assert narrow([str(number) for number in range(size)], {}).steps_left == left


def test_no_steps_are_left_at_the_end():
    assert narrow(["a", "b"], {"a": "bad"}).steps_left == 0
