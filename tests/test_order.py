"""The order of the training data: a pure function of (seed, step), the same for every design."""

import hashlib

import numpy as np
import pytest
import torch

from tessella.data.order import TrainingOrder


@pytest.mark.parametrize(("num_examples", "batch_size"), [(1, 1), (7, 7), (10, 3), (64, 16), (101, 10)])
def test_every_epoch_is_a_permutation_cut_into_whole_batches(num_examples, batch_size):
    order = TrainingOrder(num_examples, batch_size, seed=3)
    steps = num_examples // batch_size
    for epoch in range(4):
        permutation = order.permutation(epoch)
        assert sorted(permutation.tolist()) == list(range(num_examples))
        seen = torch.cat([order.indices(epoch * steps + step) for step in range(steps)])
        assert seen.dtype == torch.int64
        assert seen.tolist() == permutation[: steps * batch_size].tolist()
        assert len(set(seen.tolist())) == steps * batch_size  # no repeats inside an epoch


def test_any_step_can_be_asked_for_first():
    in_order = TrainingOrder(50, 8, seed=1)
    forward = [in_order.indices(step).tolist() for step in range(20)]
    backward = TrainingOrder(50, 8, seed=1)
    assert [backward.indices(step).tolist() for step in reversed(range(20))] == forward[::-1]


def test_the_examples_left_over_change_from_epoch_to_epoch():
    order = TrainingOrder(10, 4, seed=0)
    assert len({tuple(sorted(order.permutation(epoch)[8:].tolist())) for epoch in range(20)}) > 5


def test_seeds_and_epochs_differ():
    orders = {tuple(TrainingOrder(40, 8, seed).permutation(epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_position_of_an_epoch_is_equally_likely():
    order = TrainingOrder(5, 1, seed=0)
    where = np.stack([np.argsort(order.permutation(epoch)) for epoch in range(2000)])  # (epochs, examples)
    counts = np.stack([np.bincount(column, minlength=5) for column in where.T])
    # 400 expected, standard deviation 18
    assert counts.min() > 320
    assert counts.max() < 480


def test_digest_is_the_sha256_of_the_indices():
    order = TrainingOrder(23, 5, seed=9)
    indices = torch.cat([order.indices(step) for step in range(11)]).numpy().astype("<i8")
    assert order.digest(11) == hashlib.sha256(indices.tobytes()).hexdigest()
    assert order.digest(11) == TrainingOrder(23, 5, seed=9).digest(11)
    assert order.digest(11) != order.digest(10)
    assert order.digest(11) != TrainingOrder(23, 5, seed=8).digest(11)


def test_the_order_is_the_same_on_every_machine():
    """Fixed values: a change here means that old runs can no longer be resumed or compared."""
    assert TrainingOrder(8, 4, seed=0).indices(0).tolist() == [1, 6, 4, 5]
    assert TrainingOrder(8, 4, seed=0).indices(5).tolist() == [1, 2, 4, 5]


def test_changing_the_returned_indices_changes_nothing():
    order = TrainingOrder(8, 4, seed=0)
    first = order.indices(0)
    expected = first.tolist()
    first.zero_()
    assert order.indices(0).tolist() == expected


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size=11 exceeds the 10 training examples; use at most 10"):
        TrainingOrder(10, 11, seed=0)
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        TrainingOrder(10, 0, seed=0)
    with pytest.raises(ValueError, match="step=-1"):
        TrainingOrder(10, 2, seed=0).indices(-1)
