from __future__ import annotations

from petra_optuna.stopwatch import Stopwatch


def test_each_phase_has_the_time_since_the_one_before_it() -> None:
    times = iter((10.0, 11.0, 14.0, 14.5))
    watch = Stopwatch(lambda: next(times))
    for phase in ("export", "quality", "export"):
        watch.lap(phase)
    assert watch.seconds == {"export": 1.5, "quality": 3.0}
