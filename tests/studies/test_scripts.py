"""Every script tells in its help what it prints."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "studies").rglob("*.py"))
    if "script.run(main)" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_help_says_in_one_sentence_what_the_script_prints(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(name).main()
    assert end.value.code == 0
    sentence = capsys.readouterr().out.split("\n\n")[1]
    assert sentence.startswith(("Print ", "Write ")), sentence
    assert sentence.endswith("."), sentence
    assert f"python -m {name}" in (sys.modules[name].__doc__ or "")
