from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.news_files import TOPICS, news_rows, write_news, write_rows

from petra_optuna.errors import DataError
from petra_optuna.nn.copying import private_copy
from petra_optuna.tasks import ag_news, build_task
from petra_optuna.tasks.arrays import first_input
from petra_optuna.tasks.checks import check_evaluation, check_training


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_news(tmp_path / "data")


def _texts(task_splits: ag_news.LabeledSplits, name: str) -> list[set[str]]:
    words = task_splits.preprocess["vocabulary"]
    inputs, _ = next(task_splits.splits[name].batches(1000))
    return [{words[token - 2] for token in text if token > 1} for text in first_input(inputs).tolist()]


@pytest.mark.parametrize("nested", ["", "ag_news"])
def test_every_tenth_article_of_a_topic_is_selection(root: Path, nested: str) -> None:
    if nested:
        (root / nested).mkdir()
        for name in ("train.csv", "test.csv"):
            (root / name).rename(root / nested / name)
    data = ag_news.read_news(root)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 40,
        "selection": 8,
        "test": 12,
    }
    kept = {f"early{number}" for number in range(12) if number not in (0, 10)}
    numbers = [next(iter(text & kept)) for text in _texts(data, "train")]
    assert numbers == [f"early{number}" for number in range(12) if number % 10 for _ in TOPICS]
    _, targets = next(data.splits["selection"].batches(8))
    assert targets.tolist() == [0, 1, 2, 3] * 2


def test_the_vocabulary_is_that_of_train_alone(root: Path) -> None:
    words = set(ag_news.read_news(root).preprocess["vocabulary"])
    assert {"early1", "war", "the"} <= words
    assert not {"early0", "early10", "late0"} & words


def test_header_empty_lines_and_a_missing_description_are_read(root: Path) -> None:
    expected = ag_news.read_news(root)
    rows = [[row[0], f"{row[1]} {row[2]}"] for row in news_rows("early", 12)]
    write_rows(root / "train.csv", [["Class Index", "Text"], *rows])
    with open(root / "train.csv", "a", encoding="utf-8") as file:
        file.write("\n\n")
    other = ag_news.read_news(root)
    assert other.preprocess == expected.preprocess
    assert _texts(other, "train") == _texts(expected, "train")


def test_it_passes_the_checks_that_a_task_of_ones_own_has_to(root: Path, tmp_path: Path) -> None:
    task = build_task("ag_news", data_root=root, cache_dir=tmp_path / "cache")
    check_evaluation(private_copy(task.model), task.selection, task.metric)
    check_training(private_copy(task.model), task.train, task.loss, None)
    assert task.preprocess["dtype"] == str(first_input(task.example).dtype).removeprefix("torch.")


def test_a_checkpoint_takes_the_place_of_the_training(root: Path, tmp_path: Path) -> None:
    data = ag_news.read_news(root)
    model = ag_news.build_model(len(data.preprocess["vocabulary"]))
    save_file(model.state_dict(), tmp_path / "base.safetensors")
    task = build_task(
        "ag_news", data_root=root, checkpoint=tmp_path / "base.safetensors", cache_dir=tmp_path / "cache"
    )
    assert torch.equal(task.model.state_dict()["head.weight"], model.state_dict()["head.weight"])
    save_file(ag_news.build_model(5).state_dict(), tmp_path / "base.safetensors")
    with pytest.raises(DataError, match=r"base.safetensors is not a safetensors state_dict of") as caught:
        build_task(
            "ag_news", data_root=root, checkpoint=tmp_path / "base.safetensors", cache_dir=tmp_path / "cache"
        )
    assert "\n" not in str(caught.value)


def _missing(root: Path) -> str:
    (root / "train.csv").unlink()
    return "no AG News in .*expected train.csv and test.csv"


def _no_test(root: Path) -> str:
    (root / "test.csv").unlink()
    return "test.csv is not a readable CSV file"


def _empty(root: Path) -> str:
    (root / "test.csv").write_text("")
    return "test.csv has no rows"


def _header_only(root: Path) -> str:
    (root / "train.csv").write_text("class,title,description\n")
    return "train.csv has no rows"


def _class_five(root: Path) -> str:
    write_rows(root / "train.csv", [*news_rows("early", 2), ["5", "title", "text"]])
    return r"train.csv:9 has class '5'; expected a number from 1 to 4"


def _class_of_words(root: Path) -> str:
    write_rows(root / "train.csv", [*news_rows("early", 2), ["Sports", "title", "text"]])
    return r"train.csv:9 has class 'Sports'"


def _one_column(root: Path) -> str:
    write_rows(root / "train.csv", [*news_rows("early", 2), ["4"]])
    return r"train.csv:9 has one column"


def _topic_gone(root: Path) -> str:
    write_rows(root / "train.csv", [row for row in news_rows("early", 12) if row[0] != "2"])
    return "class 'Sports' has no training sample"


def _bytes(root: Path) -> str:
    (root / "train.csv").write_bytes(b"1,\xff\xfe\x00,text\n")
    return "train.csv is not a readable CSV file in UTF-8"


@pytest.mark.parametrize(
    "spoil",
    [
        *(_missing, _no_test, _empty, _header_only, _class_five, _class_of_words, _one_column, _topic_gone),
        _bytes,
    ],
)
def test_a_spoiled_file_is_one_line(root: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    message = spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        ag_news.read_news(root)
    assert "\n" not in str(caught.value)


def test_without_a_folder_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give a `data_root` with train.csv and test.csv"):
        build_task("ag_news", cache_dir=tmp_path)
