"""``petra tune`` and ``petra recommend``, and what continues and exports a tuning study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support import small_task, tiny_workload
from support.serving import Served, fake_servers
from support.wav_files import write_tones

from petra_optuna import cli
from petra_optuna.database import open_storage
from petra_optuna.edgetune import WORKLOADS, counts_of, is_tuning, record_of
from petra_optuna.measurement import available_cores
from petra_optuna.measurement.energy import RAPL
from petra_optuna.study import load_study
from petra_optuna.tasks import Task

Call = Callable[..., int]
URL = "sqlite:///storage/tune.db"
SHORT = ("--budget", "epoch", "--min-epochs", 1, "--max-epochs", 1, "--algorithm", "random")
QUICK = (*SHORT, "--device", "board.json", "--storage", URL)
BOARD = {"name": "board", "cores": 1, "memory_bytes": 2**30}


@pytest.fixture(scope="module", autouse=True)
def short(measured_shortly: None) -> Iterator[None]:
    """Searches of this process measure by a formula."""
    with fake_servers(Served()), tiny_workload.quick_files():
        yield


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(WORKLOADS, tiny_workload.NAME, tiny_workload.build)
    (tmp_path / "board.json").write_text(json.dumps(BOARD))

    def petra(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["petra", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    return petra


RECORDING = '''
"""Stands in for the runtime, and says how it is used."""
import json, os
import numpy as np

class SessionOptions:
    intra_op_num_threads = 0

    def add_session_config_entry(self, *_):
        pass

class _Input:
    name = "input"

class InferenceSession:
    def __init__(self, path, options=None, providers=None, **_):
        self.threads = options.intra_op_num_threads

    def get_inputs(self):
        return [_Input()]

    def run(self, names, feeds):
        count = len(next(iter(feeds.values())))
        with open(os.environ["USED"], "a") as used:
            print(json.dumps([count, self.threads, len(os.sched_getaffinity(0))]), file=used)
        return [np.zeros((count, 4), np.float32)]
'''


def used_by_script(out: Path, samples: int) -> list[list[int]]:
    """Batch, threads and cores of each call of the runtime by ``run.py``."""
    stand_in = out.parent / "stand_in"
    stand_in.mkdir()
    (stand_in / "onnxruntime.py").write_text(textwrap.dedent(RECORDING))
    np.save(out.parent / "inputs.npy", np.zeros((samples, 1, 8, 8), np.float32))
    used = out.parent / "used"
    environment = {**os.environ, "PYTHONPATH": str(stand_in), "USED": str(used)}
    command = [sys.executable, str(out / "run.py"), str(out.parent / "inputs.npy")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return [json.loads(line) for line in used.read_text().splitlines()]


def test_a_study_from_tuning_to_a_folder_that_serves_as_recommended(call, capsys, tmp_path) -> None:
    tuned = ["tune", "tiny", "--max-batch", 8, *QUICK]
    assert call(*tuned, "--trials", 2, "--out", "out") == 0
    told = capsys.readouterr().out
    assert "[2/2] width=" in told
    assert "Inference server: " in told
    assert "Files written to out" in told
    deployment = json.loads((tmp_path / "out" / "deployment.json").read_text())
    setting = deployment["setting"]
    assert setting["batch"] > 1
    assert used_by_script(tmp_path / "out", setting["batch"] + 1) == [
        [count, setting["threads"], setting["cores"]] for count in (setting["batch"], 1)
    ]

    assert call(*tuned, "--trials", 2, "--json") == 0  # the study is finished already
    printed = json.loads(capsys.readouterr().out)
    assert printed["inference"] == deployment
    assert printed["study"] == "tune-tiny"
    assert {"batch_size", "learning_rate", "epochs", "train_s"} <= set(printed["training"])

    stored = ["--storage", URL]
    assert call("recommend", *stored, "--json") == 0
    assert json.loads(capsys.readouterr().out) == deployment
    assert call("recommend", *stored, "--trial", printed["trial"]) == 0
    assert f"batch {setting['batch']}" in capsys.readouterr().out

    assert call("resume", *stored, "--trials", 3) == 0
    assert "[3/3]" in capsys.readouterr().out
    study = load_study(open_storage(URL))
    assert is_tuning(study)
    assert len(study.trials) == 3

    assert call("export", *stored, "--trial", 0, "--out", "exported") == 0
    assert f"accuracy {record_of(study.trials[0]).quality:.4f}" in capsys.readouterr().out
    assert (tmp_path / "exported" / "model.onnx").is_file()
    for option in (["--workers", 2], ["--target", "accuracy=1"], ["--generations", 2], ["--task", "a:b"]):
        assert call("resume", *stored, "--trials", 4, *option) == 2
        assert capsys.readouterr().err == f"petra: {option[0]} is not for a tuning study\n"
    for option in (["--cap"], ["--max-batch", 8], ["--algorithm", "tpe"], ["--device", "host"]):
        assert call("recommend", *stored, *option) == 2
        assert capsys.readouterr().err == f"petra: {option[0]} is not for a tuning study\n"
    assert call("export", *stored, "--trial", 0, "--out", "other", "--checkpoint", "a.pt") == 2
    assert capsys.readouterr().err == "petra: --checkpoint is not for a tuning study\n"


def test_tuning_without_regard_to_inference_recommends_nothing(call, capsys) -> None:
    assert call("tune", "tiny", *QUICK, "--trials", 1, "--inference-objective", "none", "--quiet") == 0
    assert counts_of(load_study(open_storage(URL))).searches == 0
    assert call("recommend", "--storage", URL) == 2
    assert "has no inference objective" in capsys.readouterr().err


def test_estimated_energy_is_called_so_in_every_output(call, capsys, tmp_path) -> None:
    energy = ["--objective", "energy", "--inference-objective", "energy"]
    tuned = ["tune", "tiny", *QUICK, *energy, "--energy-estimator", "cpu-time:6", "--trials", 1]
    assert call(*tuned, "--out", "out") == 0
    told = capsys.readouterr().out
    assert told.count("estimated: cpu-time at 6 W a core") >= 4
    assert call("recommend", "--storage", URL) == 0
    assert "estimated" in capsys.readouterr().out
    for name in ("deployment.json", "recipe.json"):
        assert "estimated" in (tmp_path / "out" / name).read_text()
    assert call(*tuned, "--json") == 0
    assert json.loads(capsys.readouterr().out)["training"]["energy_source"].startswith("estimated")


def test_speech_in_a_folder_is_tuned(call, capsys, tmp_path) -> None:
    write_tones(tmp_path / "tones", (250, 500), 30)
    space = ["--space", "embedding=32", "--space", "batch_size=32:32", "--space", "learning_rate=0.01"]
    assert call("tune", "sr", "--data-root", "tones", *space, *QUICK, "--trials", 1, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["model"] == {"embedding": 32}
    assert printed["training"]["batch_size"] == 32
    specification = load_study(open_storage(URL)).user_attrs["petra:tuning"]
    assert specification["workload"] == {"name": "sr", "data_root": str(tmp_path / "tones")}
    (tmp_path / "tones").rename(tmp_path / "moved")
    assert call("resume", "--storage", URL, "--trials", 2) == 2
    assert call("resume", "--storage", URL, "--trials", 2, "--data-root", "moved") == 0


def test_a_finished_trial_of_a_search_is_recommended_and_exported(
    call, capsys, tmp_path, tiny_task: Task, monkeypatch
) -> None:
    monkeypatch.setattr(small_task, "make", lambda: tiny_task)
    (tmp_path / "small.json").write_text('{"name": "small", "cores": 1, "memory_bytes": 1000}')
    task = ["--task", "support.small_task:make"]
    url = ["--storage", "sqlite:///storage/tiny.db"]
    assert call("run", "support.small_task:make", *url, "--trials", 1, "--epochs", 1, "--quiet") == 0
    asked = ["recommend", *url, *task, "--trial", 0, "--device", "board.json", "--max-batch", 8]
    assert call(*asked, "--objective", "latency", "--json") == 0
    latency = json.loads(capsys.readouterr().out)
    assert (latency["setting"]["batch"], latency["from_history"]) == (1, False)
    assert call(*asked, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["setting"]["batch"] > 1
    assert call(*asked) == 0
    told = capsys.readouterr().out
    assert "answered from history" in told
    assert "times better than one sample by all threads" in told
    assert call("export", *url, *task, "--trial", 0, "--out", "out") == 0
    deployment = json.loads((tmp_path / "out" / "deployment.json").read_text())
    assert deployment["setting"] == answer["setting"]
    setting = deployment["setting"]
    assert (
        used_by_script(tmp_path / "out", 2 * setting["batch"])
        == [[setting["batch"], setting["threads"], setting["cores"]]] * 2
    )
    capsys.readouterr()
    for wrong, told in (
        (["--objective", "speed"], "unknown inference objective 'speed'"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--algorithm", "anneal"], "unknown search algorithm 'anneal'"),
        (["--trial", 9], "has no trial 9"),
        (["--device", "small.json"], "device 'small' allows 1000 bytes of memory, which does not hold"),
    ):
        assert call(*asked, *wrong) == 2
        assert one_line(capsys, told)
    assert call("recommend", *url, *task) == 2
    assert one_line(capsys, "give --trial")


def one_line(capsys: pytest.CaptureFixture[str], told: str) -> bool:
    printed = capsys.readouterr()
    assert printed.err.startswith("petra: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err + printed.out
    return told in printed.err


NO_ENERGY = pytest.mark.skipif((RAPL / "intel-rapl:0").exists(), reason="this machine counts energy")
BAD = {
    "unknown workload": (
        ["tune", "nosuch", "--trials", 1],
        "unknown workload 'nosuch'; known: ic, nlp, od, sr",
    ),
    "no end": (["tune", "tiny"], "give --trials, --timeout"),
    "device": (["tune", "tiny", "--trials", 1, "--device", "abacus"], "unknown device 'abacus'"),
    "device file": (["tune", "tiny", "--trials", 1, "--device", "no.json"], "no.json cannot be read"),
    "cores": (
        ["tune", "tiny", "--trials", 1, "--device", "large.json"],
        "device 'large' has 4096 cores, this machine has",
    ),
    "objective": (["tune", "tiny", "--trials", 1, "--objective", "speed"], "objective 'speed'"),
    "inference objective": (
        ["tune", "tiny", "--trials", 1, "--inference-objective", "speed"],
        "unknown inference objective 'speed'",
    ),
    "algorithm": (["tune", "tiny", "--trials", 1, "--algorithm", "anneal"], "search algorithm 'anneal'"),
    "nested algorithm": (
        ["tune", "tiny", "--trials", 1, "--inference-algorithm", "anneal"],
        "search algorithm 'anneal'",
    ),
    "budget": (["tune", "tiny", "--trials", 1, "--budget", "both"], "'both' is not one of"),
    "epochs": (["tune", "tiny", "--trials", 1, "--min-epochs", 20], "got 20 and 10"),
    "space": (["tune", "tiny", "--trials", 1, "--space", "width"], "NAME=LOW:HIGH"),
    "space's parameter": (["tune", "tiny", "--trials", 1, "--space", "depth=1:2"], "'depth' of the space"),
    "space's value": (["tune", "tiny", "--trials", 1, "--space", "width=3"], "3 is none of 2, 4"),
    "group": (["tune", "tiny", "--trials", 1, "--group", "random"], "--group must be ALGORITHM=NAME,NAME"),
    "group's parameter": (
        ["tune", "tiny", "--trials", 1, "--group", "random=depth"],
        "parameter 'depth' of the group of random is unknown",
    ),
    "group's algorithm": (
        ["tune", "tiny", "--trials", 1, "--group", "anneal=width"],
        "search algorithm 'anneal'",
    ),
    "grid": (
        ["tune", "tiny", "--algorithm", "grid", "--space", "train_threads=1:1000"],
        "points; give --trials",
    ),
    "estimator": (
        ["tune", "tiny", "--trials", 1, "--inference-objective", "energy", "--energy-estimator", "6"],
        "cpu-time:WATTS",
    ),
    "energy of training alone": (
        ["tune", "tiny", "--trials", 1, "--objective", "energy", "--energy-estimator", "cpu-time:6"],
        "give --inference-objective energy, or none",
    ),
    "batch": (["tune", "tiny", "--trials", 1, "--max-batch", 0], "--max-batch"),
    "name": (["tune", "tiny", "--trials", 1, "--study", "inference-1"], "give another --study"),
    "data": (["tune", "sr", "--trials", 1, "--data-root", "flat"], "flat"),
    "folder to write": (["tune", "tiny", "--trials", 1, "--out", "flat"], "give another --out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_with_one_line_and_exit_code_2(call, capsys, tmp_path, case: str) -> None:
    (tmp_path / "large.json").write_text('{"name": "large", "cores": 4096}')
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "notes.txt").write_text("no class here")
    arguments, told = BAD[case]
    assert call(*arguments) == 2
    assert one_line(capsys, told)
    database = tmp_path / "storage" / "study.db"
    assert not database.exists() or not load_names(database)


def load_names(database: Path) -> list[str]:
    return [summary.study_name for summary in open_storage(database).get_all_studies()]


@NO_ENERGY
def test_energy_that_nothing_counts_is_one_line(call, capsys) -> None:
    assert call("tune", "tiny", "--trials", 1, "--inference-objective", "energy") == 2
    assert one_line(capsys, "name an estimator, for example --energy-estimator cpu-time:6")


def test_a_device_of_a_file_is_capped_where_it_is_asked_for(call, capsys, tmp_path) -> None:
    (tmp_path / "large.json").write_text('{"name": "large", "cores": 4096}')
    tuned = ["tune", "tiny", *SHORT, "--storage", URL, "--device", "large.json", "--cap", "--trials", 1]
    assert call(*tuned) == 0
    assert "capped: the device has 4096" in capsys.readouterr().out.replace("\n", " ")
    device = load_study(open_storage(URL)).user_attrs["petra:tuning"]["device"]
    assert device["cores"] <= available_cores()


def test_a_memory_under_the_model_is_one_line(call, capsys, tmp_path) -> None:
    (tmp_path / "board.json").write_text(json.dumps(BOARD | {"memory_bytes": 1000}))
    assert call("tune", "tiny", *QUICK, "--trials", 1, "--quiet") == 2
    assert one_line(
        capsys,
        "has no completed trial (trial 0: MeasurementFailed: device 'board' allows 1000 bytes of memory, "
        "which does not hold model.onnx",
    )
