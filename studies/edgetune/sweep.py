"""Print how close recommended settings come to the best of an exhaustive sweep of the same grid.

    python -m studies.edgetune.sweep

For each architecture every setting of the grid is measured once, in short blocks, and a search is run by the
algorithm with a tenth of the measurements. Of many noisy values the best one is too good, so the three best
settings of the sweep, the recommended one and one sample by all threads are then measured again in turn, in
both orders. The table shows the recommended setting's value in percent of that of the best of the three, with
its 95 % interval. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import optuna

from petra_optuna.database import open_storage
from petra_optuna.inference import EdgeDevice, InferenceTuner, inference_objective, serving_cores
from petra_optuna.inference.objective import figures, value_of
from petra_optuna.measurement import InferenceSetting, Schedule, SettingProcess, available_cores
from petra_optuna.measurement.interval import ratio_interval
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.noise import Reading
from studies import script
from studies.edgetune.architectures import every, exported

SHORT = Schedule(block_s=0.01, settle_s=0.002, min_pairs=4, max_pairs=4)
AGAIN = 3
"""Best settings of the sweep that are measured again."""
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
        header = (
            *("architecture", "settings", "measured", "best", "recommended"),
            *("of the best, %", "from", "to", "gain, times"),
        )
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
        best = sorted(settings, key=lambda setting: sign * swept[setting])[-AGAIN:]
        compared = (tuner.space.first_settings()[0], answer.setting, *best)
        with SettingProcess(file, feeds, tuner.cores) as process:
            again = np.array([_in_turn(tuner, process, compared, turn) for turn in range(repeats)])
        winner = 2 + int(np.argmax(sign * np.median(again[:, 2:], axis=0)))
        ratios = (again[:, 1] / again[:, winner]) ** sign
        share, low, high = (100 * value for value in ratio_interval(ratios))
        gain, *_ = ratio_interval((again[:, 1] / again[:, 0]) ** sign)
        shares.append(share)
        yield (
            *(name, len(settings), answer.measurements, compared[winner].describe()),
            answer.setting.describe(),
            *(f"{share:.1f}", f"{low:.1f}", f"{high:.1f}", f"{gain:.2f}"),
        )
    yield "least, median", "", "", "", "", f"{min(shares):.1f}, {np.median(shares):.1f}", "", "", ""


def _in_turn(
    tuner: InferenceTuner, process: SettingProcess, settings: Sequence[InferenceSetting], turn: int
) -> list[float]:
    """Values of the settings, measured in their order or in the opposite one."""
    order = slice(None, None, 1 if turn % 2 == 0 else -1)
    return [_value(tuner, process, setting) for setting in settings[order]][order]


def _value(tuner: InferenceTuner, process: SettingProcess, setting: InferenceSetting) -> float:
    return value_of(tuner.objective, figures(process.measure(setting), ANCHOR))


def _arguments() -> argparse.Namespace:
    parser = script.parser(__doc__)
    parser.add_argument("--architectures", type=int, default=12, help="number of architectures")
    parser.add_argument(
        "--objective", choices=("throughput", "latency"), default="throughput", help="inference objective"
    )
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch of the grid")
    parser.add_argument("--algorithm", default="tpe", help="search algorithm")
    parser.add_argument("--repeats", type=int, default=16, help="measurements of the compared settings, even")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
