"""A process that answers JSON lines as a test says, without loading anything of ours.

``python answering.py FOLDER``: number and requests go to ``FOLDER/processes`` and ``FOLDER/requests``,
a line each. ``FOLDER/script.json`` is a list of which each process takes the first element that is left:
``answer`` or ``refuse`` all requests, ``die`` or ``hang`` at the first one. ``FOLDER/answer.json`` is what
``conclude`` answers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    script = folder / "script.json"
    acts = json.loads(script.read_text())
    script.write_text(json.dumps(acts[1:]))
    with (folder / "processes").open("a") as processes:
        print(os.getpid(), file=processes, flush=True)
    for line in sys.stdin:
        with (folder / "requests").open("a") as requests:
            requests.write(line)
        if acts[0] == "die":
            sys.exit("out of luck")
        if acts[0] == "hang":
            time.sleep(600)
        concludes = json.loads(line)["command"] == "conclude"
        result = json.loads((folder / "answer.json").read_text()) if concludes else None
        answer = {"error": "the model is too large"} if acts[0] == "refuse" else {"result": result}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
