"""The controls of the studies of event sequences."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support.event_files import write_planted

from petra_optuna.tasks.events.downstream import Classifier
from petra_optuna.tasks.events.event_sequences import read_schema
from studies import coles, script


def test_aggregates_are_those_of_hand() -> None:
    """Two events of one client, three of another; category 2 twice, 3 once, 1 (unknown) twice."""
    inputs = {
        "categories": torch.tensor([[[2], [3], [0]], [[1], [2], [1]]]),
        "numbers": torch.tensor([[[1.0], [3.0], [0.0]], [[2.0], [4.0], [6.0]]]),
        "lengths": torch.tensor([2, 3]),
    }
    deviations = [1.0, np.sqrt(8 / 3)]
    expected = [
        [2, 4, 2, deviations[0], 1, 3, 0, 0, 1 / 2, 1, 1 / 2, 3],
        [3, 12, 4, deviations[1], 2, 6, 2 / 3, 4, 1 / 3, 4, 0, 0],
    ]
    np.testing.assert_allclose(coles.aggregates_of(inputs, [2]), expected, rtol=1e-6)


def test_controls_are_scored_on_the_same_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(coles, "RESAMPLES", 20)
    given = read_schema(write_planted(tmp_path / "data", 100, 12) / "schema.json")
    recipe = dataclasses.replace(given.coles.recipe, epochs=1)
    small = dataclasses.replace(given.coles, hidden=8, recipe=recipe, classifier=Classifier(trees=5))
    scores = coles.controls(given.source, small, (0, 1))
    assert set(scores.of_features) == {coles.AGGREGATES, coles.EMBEDDINGS, coles.BOTH}
    for arrays in scores.of_features.values():
        assert [array.shape for array in arrays] == [(len(scores.classes), 2)] * 2
    rows = coles._rows(scores)
    assert [row[:2] for row in rows[:3]] == [(name, "auc") for name in scores.of_features]
    assert rows[0][5:] == ("0.0000",) * 3
    value, low, high = map(float, rows[1][2:5])
    assert low <= value <= high
