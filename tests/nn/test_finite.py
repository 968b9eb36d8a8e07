from __future__ import annotations

import numpy as np

from petra_optuna.nn.finite import tell_samples


def test_the_first_broken_sample_is_told_with_what_breaks_some_samples_alone() -> None:
    broken = np.zeros((8, 2, 3), dtype=bool)
    broken[[3, 5], 1, 2] = True
    assert tell_samples(broken).startswith(
        "sample 3 of 8, counted from 0: attention gives NaN where a mask hides"
    )


def test_a_model_that_is_broken_on_every_sample_is_not_blamed_on_padding() -> None:
    assert tell_samples(np.ones((4, 2), dtype=bool)) == "sample 0 of 4, counted from 0"
    assert tell_samples(np.ones(4, dtype=bool)) == "sample 0 of 4, counted from 0"
