"""Print how samplers compare on problems, over seeds and simulated workers.

    python -m studies.compare_samplers --dry-run        # what there is to do, and how long it takes
    python -m studies.compare_samplers --jobs 2
    python -m studies.compare_samplers CONFIG.toml --report-only

Every finished run is one line of ``results.jsonl`` in the configuration's folder; a run that is there is not
repeated, so the command can be stopped and started at any time, twice at once too. Runs of our samplers are
repeated when the source of the samplers has changed. The configuration beside this file is the default; see
``studies.comparison.problems`` for the problems and ``studies.comparison.samplers`` for the kinds of
samplers; what else stands in a sampler's table are arguments of its constructor. Beside the results
``plots.html`` is written.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import statistics
import warnings
from pathlib import Path

import optuna

from petra_optuna.errors import UserError
from petra_optuna.results.report import as_markdown
from studies import script
from studies.comparison.config import Config, read_config
from studies.comparison.plots import write_plots
from studies.comparison.results import Record, problem_of, read, work
from studies.comparison.tables import report

JUDGING_MS = 2.0
"""Milliseconds that evaluating a trial and judging the front take."""
DEFAULT = Path(__file__).with_suffix(".toml")


def main() -> None:
    """Run what is missing, then print."""
    parser = script.parser(__doc__)
    parser.add_argument("config", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--dry-run", action="store_true", help="print an estimate and stop")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    if arguments.dry_run:
        print(estimate(config))
        return
    config.folder.mkdir(parents=True, exist_ok=True)
    if not arguments.report_only:
        _run(config, arguments.jobs)
    records = finished(config)
    if not records:
        raise UserError(f"{config.folder} holds no finished run of {arguments.config}")
    print(report(records, config.subject))
    write_plots(records, config.folder / "plots.html")


def estimate(config: Config) -> str:
    """A table of the runs that are left and the minutes of one core that they take, by sampler.

    The times are those of finished runs of the same sampler on the same problem, or else the configuration's.
    """
    done = read(config.folder)
    measured: dict[tuple[str, str, int], list[float]] = {}
    for record in done.values():
        measured.setdefault(_alike(record), []).append(record["ms_per_trial"])
    seconds: dict[str, list[float]] = {label: [] for label in config.samplers}
    for run in config.runs():
        if run.key(problem_of(run.problem, config.folder)) not in done:
            ms = statistics.fmean(measured.get(_alike(dataclasses.asdict(run)), [run.expected_ms]))
            seconds[run.sampler].append(run.trials * (JUDGING_MS + ms) / 1000)
    seconds["all"] = [run_seconds for of_sampler in seconds.values() for run_seconds in of_sampler]
    rows = [[label, str(len(runs)), f"{sum(runs) / 60:.1f}"] for label, runs in seconds.items()]
    return as_markdown(("sampler", "runs left", "minutes of one core"), rows)


def finished(config: Config) -> list[Record]:
    """Records of the configuration's finished runs, in its order."""
    done = read(config.folder)
    keys = [(run, run.key(problem_of(run.problem, config.folder))) for run in config.runs()]
    # The label is the configuration's: two may name the same run differently.
    return [{**done[key], "sampler": run.sampler} for run, key in keys if key in done]


def _alike(run: Record) -> tuple[str, str, int]:
    return json.dumps([run["kind"], run["options"]], sort_keys=True), run["problem"], run["trials"]


def _run(config: Config, jobs: int) -> None:
    runs = config.runs()
    if jobs == 1:
        _work(config)
        return
    for name in dict.fromkeys(run.problem for run in runs):  # an error in a name ends it here
        problem_of(name, config.folder)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(config,)) for _ in range(jobs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise UserError("a process has failed; its error stands above, and what was finished is kept")


def _work(config: Config) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    work(config.runs(), config.folder)


if __name__ == "__main__":
    script.run(main)
