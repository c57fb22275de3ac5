# SPDX-License-Identifier: Apache-2.0

"""
How close training is to what the hardware allows: ``python benchmarks/benchmark.py OUT``.

Ratios of times measured side by side, in turns, as medians; a table on the screen and in ``benchmark.md``, all numbers
in ``benchmark.json``. ``--growth`` measures how cost grows, ``--options`` what precision, memory layout, compilation
and checkpointed activations change.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmark_runs import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "bundle"))

from benchmark_cases import PAPER, measure
from benchmark_growth import growth, options

CASES: dict[str, dict[str, Any]] = {
    "8 channels": {"features": [8, 16, 32, 64], "sizes": [56, 64], "changes": PAPER},
    "paper's channels": {"features": [32, 64, 128, 256, 512], "sizes": [32, 48], "changes": PAPER},
    "train.json, known maps": {"features": [16, 32, 64, 128], "sizes": [48, 64], "changes": {"known_share": 1.0}},
    "train.json, two people": {"features": [16, 32, 64, 128], "sizes": [48, 64], "changes": {"known_share": 0.0}},
}
"""A training draws steps of both kinds: a median of them together would be that of one kind, by chance."""
GROWTH = ("steps", "cohorts", "trainings")
RATIOS = {
    "step_over_backbone": "step / backbone alone",
    "step_over_own_backbone": "step / this bundle's faster backbone",
    "step_over_kept_step": "step / the same, activations kept",
    "restatement_over_step": "restatement / step",
    "loader_wait_share": "waiting for data",
    "memory_over_restatement": "memory / restatement's",
    "kept_memory_over_restatement": "the same, activations kept",
    "match_over_backbone": "match / backbone alone",
    "match_over_network": "match / bare passes of backbone and heads",
    "window_over_passes": "sliding window / its passes",
    "backbone_over_product_rate": "operations a second: backbone / matrix product",
}


def phantoms(folder: Path, subjects: int = 6, spacing: float = 4.0) -> Path:
    """The folder of a cohort of phantoms, made if missing."""
    tool = REPOSITORY / "tools" / "make_phantoms.py"
    arguments = [str(folder), "--subjects", str(subjects), "--spacing", str(spacing)]
    subprocess.run([sys.executable, str(tool), *arguments], check=True, stdout=subprocess.DEVNULL)
    return folder


def table(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str], digits: int = 3) -> str:
    """Rows of numbers as Markdown."""
    lines = [f"| | {' | '.join(columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for name, row in rows.items():
        cells = [f"{row[key]:.{digits}g}" if key in row else "" for key in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(data: Path, out: Path, repeats: int, cases: Sequence[str], show: Callable[[str], None]) -> dict[str, Any]:
    """The ratios of all cases: by case, and by ratio."""
    found: dict[str, dict[str, float]] = {}
    for name in cases:
        case = CASES[name]
        for size in case["sizes"]:
            label = f"{name}, {size}x{size}x{size}"
            found[label] = measure(data, out, case["features"], size, case["changes"], repeats)
            show(f"{label}: " + ", ".join(f"{RATIOS[k]} {found[label][k]:.3g}" for k in RATIOS if k in found[label]))
    by_ratio = {k: {name: row[k] for name, row in found.items() if k in row} for k in RATIOS}
    return {**by_ratio, "cases": found}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        the exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("out", type=Path, help="folder, made if missing")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, whose medians are taken")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="which networks")
    parser.add_argument("--growth", nargs="*", choices=GROWTH, help="how cost grows, all of it or parts, instead")
    parser.add_argument("--options", action="store_true", help="precision, layout, compilation, memory, instead")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.growth is not None:
        for part in args.growth or GROWTH:
            write(args.out, f"growth_{part}", *growth(part, phantoms, args.out, args.repeats))
    elif args.options:
        write(args.out, "options", *options(phantoms(args.out / "phantoms"), args.out, args.repeats))
    else:
        data = phantoms(args.out / "phantoms_2mm", spacing=2.0)  # as large as scans often are
        result = ratios(data, args.out, args.repeats, args.cases, lambda line: print(line, flush=True))
        write(args.out, "benchmark", result, table(result["cases"], RATIOS))
    return 0


def write(out: Path, name: str, result: dict[str, Any], text: str) -> None:
    """
    Write numbers and table, and show the table.

    Args:
        out: folder.
        name: of the files.
        result: numbers, to which the machine is added.
        text: table.
    """
    cpu = f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    result["machine"] = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    (out / f"{name}.json").write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
