"""Which refusals count."""

from __future__ import annotations

from causality_sdk.chance import Chance
from causality_sdk.suspects import COUNTED_TO_BURY, Suspects


def refuse(suspects: Suspects, row_id: int = 1, *, witnessed: bool, status: int = 400) -> None:
    suspects.refused(row_id, status=status, words=f"no {status}", witnessed=witnessed)


def test_three_witnessed_refusals_doom_an_event() -> None:
    suspects = Suspects()
    for _ in range(COUNTED_TO_BURY - 1):
        refuse(suspects, witnessed=True)
        assert suspects.doomed() == {}
    refuse(suspects, witnessed=True, status=422)
    (doomed,) = suspects.doomed().values()
    assert (doomed.attempts, doomed.counted, doomed.status, doomed.words) == (3, 3, 422, "no 422")


def test_a_later_witness_counts_the_refusal_that_waited_for_it() -> None:
    suspects = Suspects()
    for _ in range(3):
        refuse(suspects, witnessed=False)
        suspects.witness()
    assert list(suspects.doomed()) == [1]


def test_refusals_without_a_witness_count_as_one_however_many_they_are() -> None:
    suspects = Suspects()
    for _ in range(1000):
        refuse(suspects, witnessed=False)
    assert suspects.doomed() == {}
    suspects.witness()
    suspects.witness()
    suspects.witness()
    assert suspects.doomed() == {}
    refuse(suspects, witnessed=True)
    assert suspects.doomed() == {}
    refuse(suspects, witnessed=True)
    assert suspects.doomed()[1].attempts == 1002


def test_a_refusal_with_a_witness_of_its_own_waits_for_none() -> None:
    suspects = Suspects()
    refuse(suspects, witnessed=False)
    refuse(suspects, witnessed=True)
    suspects.witness()
    refuse(suspects, witnessed=True)
    assert suspects.doomed() == {}


def test_an_event_that_was_accepted_or_left_is_forgotten() -> None:
    suspects = Suspects()
    refuse(suspects, 1, witnessed=False)
    refuse(suspects, 2, witnessed=True)
    assert (1 in suspects, 2 in suspects, 3 in suspects, len(suspects)) == (True, True, False, 2)
    suspects.forget([1, 2, 3])
    assert (1 in suspects, len(suspects)) == (False, 0)
    suspects.witness()
    refuse(suspects, 1, witnessed=True)
    refuse(suspects, 1, witnessed=True)
    assert suspects.doomed() == {}


def test_refusals_that_chance_explains_doom_nobody_until_there_are_too_many() -> None:
    """Where every second request fails, three in a row are nothing to bury a good event for."""
    chance = Chance()
    for _ in range(100):
        chance.failed(1)
        chance.passed()
    suspects = Suspects(chance)
    for _ in range(3):
        suspects.refused(1, status=500, words="", witnessed=True)
    assert suspects.doomed() == {}
    for _ in range(20):
        suspects.refused(1, status=500, words="", witnessed=True)
    assert list(suspects.doomed()) == [1]
