"""Print the hypervolume of a long search for the reference front of a PipeBench variant.

    python -m studies.comparison.reference medium --write

The volume is that after a tenth, three tenths and all of the run: where the last step adds little, the front
is found. With ``--write`` the record in ``petra_optuna/pipebench/reference.json`` is replaced.
"""

from __future__ import annotations

import json
from pathlib import Path

import petra_optuna.pipebench
from petra_optuna.pipebench import VARIANTS, PipeBench, best_known, reference_front
from studies import script

PATH = Path(petra_optuna.pipebench.__file__).parent / best_known.FILE


def main() -> None:
    """Search, and print the volumes."""
    parser = script.parser(__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--evaluations", type=int, default=200_000, help="length of the search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    bench = PipeBench.variant(arguments.variant)
    for share in (0.1, 0.3, 1.0):
        count = int(share * arguments.evaluations)
        front = reference_front(bench, count, arguments.seed)
        command = f"{best_known.command(bench.name)} --evaluations {count} --seed {arguments.seed}"
        record = {
            "hypervolume": bench.hypervolume([values for _, values in front]),
            "points": len(front),
            "fingerprint": best_known.fingerprint(bench),
            "command": command,
        }
        print(
            f"{count} evaluations: {len(front)} points, hypervolume {record['hypervolume']:.3f}", flush=True
        )
    if arguments.write:
        kept = json.loads(PATH.read_text(encoding="utf-8")) if PATH.is_file() else {}
        kept[arguments.variant] = record
        PATH.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    script.run(main)
