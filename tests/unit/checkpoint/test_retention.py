import pytest

from keras_metagraph.checkpoint.retention import Kept, Retention, select
from keras_metagraph.errors import CheckpointError

HOUR = 3600.0


def kept(*hours):
    return [Kept(f"model-{place}", hour * HOUR) for place, hour in enumerate(hours)]


def test_the_newest_are_kept():
    selection = select(kept(0, 1, 2, 3), Retention(2), None)
    assert [k.name for k in selection.listed] == ["model-2", "model-3"]
    assert [k.name for k in selection.pruned] == ["model-0", "model-1"]


@pytest.mark.parametrize("number", [0, None, 4, 9])
def test_all_are_kept(number):
    selection = select(kept(0, 1, 2, 3), Retention(number), None)
    assert len(selection.listed) == 4
    assert not selection.pruned


def replay(hours, policy):
    """Saves one after the other, as a training does."""
    listed, forever, last = [], [], None
    for place, hour in enumerate(hours):
        entries = [*listed, Kept(f"model-{place}", hour * HOUR)]
        selection = select(entries, policy, last)
        forever += set(entries) - set(selection.listed) - set(selection.pruned)
        listed, last = list(selection.listed), selection.last_preserved
    return [k.timestamp / HOUR for k in listed], sorted(
        k.timestamp / HOUR for k in forever
    )


def test_one_in_so_many_hours_is_kept_forever():
    policy = Retention(2, keep_checkpoint_every_n_hours=2)
    hours = [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5]
    assert replay(hours, policy) == ([5, 5.5], [2, 4])


def test_hours_are_counted_from_the_first_save():
    assert replay([7, 8, 9, 10], Retention(1, 2)) == ([10], [9])


def test_a_clock_that_goes_back_deletes_no_more():
    listed, _ = replay([5, 6, 1, 2], Retention(3, 1))
    assert listed == [6, 1, 2]


@pytest.mark.parametrize("arguments", [(-1, None), (5, 0), (5, -2.0)])
def test_ranges_are_checked(arguments):
    with pytest.raises(CheckpointError, match="To fix:"):
        Retention(*arguments)


def test_all_wrong_arguments_are_named():
    with pytest.raises(CheckpointError) as caught:
        Retention(-1, -1)
    assert len(caught.value.findings) == 2
