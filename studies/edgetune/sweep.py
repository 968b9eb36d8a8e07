"""Print how close recommended settings come to the best of an exhaustive sweep of the same grid.

    python -m studies.edgetune.sweep

For each architecture every setting of the grid is measured once, in short blocks, and a search is run by the
algorithm with a tenth of the measurements. The best setting of the sweep, the recommended one and one sample
by all threads are then measured again in turn; the table shows the medians. Run it on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna

from petra_optuna.database import open_storage
from petra_optuna.inference import EdgeDevice, InferenceTuner, inference_objective, serving_cores
from petra_optuna.inference.objective import figures, value_of
from petra_optuna.measurement import InferenceSetting, Schedule, SettingProcess, available_cores
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.noise import Reading
from studies import script
from studies.edgetune.architectures import every, exported

SHORT = Schedule(block_s=0.01, settle_s=0.002, min_pairs=4, max_pairs=4)
ANCHOR = Reading(1.0)
"""Settings of one file are compared with each other, so the anchor's own time does not matter."""


def main() -> None:
    """Print the table."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    device = EdgeDevice("host", available_cores())
    objective = inference_objective(given.objective)
    with tempfile.TemporaryDirectory() as folder:
        tuner = InferenceTuner(
            storage=open_storage(Path(folder, "sweep.db")),
            device=device,
            cores=serving_cores(device),
            objective=objective,
            max_batch=given.max_batch,
            algorithm=given.algorithm,
        )
        header = ("architecture", "settings", "measured", "best", "recommended", "of the best, %", "gain")
        script.print_table(header, _rows(tuner, every(given.architectures), Path(folder), given.repeats))


def _rows(
    tuner: InferenceTuner, names: list[str], folder: Path, repeats: int
) -> Iterator[tuple[object, ...]]:
    sign = 1 if tuner.objective.direction == "maximize" else -1
    shares = []
    for name, file, example in exported(names, folder):
        feeds = to_feeds((example,))
        answer = tuner.recommend(file, feeds)
        settings = tuner.space.settings()
        with SettingProcess(file, feeds, tuner.cores, schedule=SHORT) as process:
            swept = {setting: _value(tuner, process, setting) for setting in settings}
        best = max(settings, key=lambda setting: sign * swept[setting])
        with SettingProcess(file, feeds, tuner.cores) as process:
            compared = (best, answer.setting, tuner.space.first_settings()[0])
            again = [[_value(tuner, process, setting) for setting in compared] for _ in range(repeats)]
        of_best, of_answer, simple = np.median(again, axis=0)
        share = (of_answer / of_best) ** sign
        shares.append(share)
        yield (
            name,
            len(settings),
            answer.measurements,
            best.describe(),
            answer.setting.describe(),
            f"{100 * share:.1f}",
            f"{(of_answer / simple) ** sign:.2f}",
        )
    yield "least, median", "", "", "", "", f"{100 * min(shares):.1f}, {100 * np.median(shares):.1f}", ""


def _value(tuner: InferenceTuner, process: SettingProcess, setting: InferenceSetting) -> float:
    return value_of(tuner.objective, figures(process.measure(setting), ANCHOR))


def _arguments() -> argparse.Namespace:
    parser = script.parser(__doc__)
    parser.add_argument("--architectures", type=int, default=12, help="number of architectures")
    parser.add_argument("--objective", default="throughput", help="inference objective")
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch of the grid")
    parser.add_argument("--algorithm", default="tpe", help="search algorithm")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of the compared settings")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
