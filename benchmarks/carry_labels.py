# SPDX-License-Identifier: Apache-2.0

"""
Dice of labels carried from several atlases: ``python benchmarks/carry_labels.py hippocampus|ixi_brain DATA OUT``.

DATA is the folder of the set, with its ``dataset.json``. Plain vote, vote weighted by local agreement, and with the
linear layer too, by the shipped weights, for 1, 3 and 7 atlases (the same matches in all). The scans are of subjects
that the weights were not trained on, the atlases of the others, which they have seen without labels.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import list_data_collate
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts.data import find_scans, seen_scans
from scripts.errors import InputError, show_one_line
from scripts.finetuning import AtlasReader
from scripts.matching.label_vote import CarriedLabels, LabelVote
from scripts.training import ModelLoader

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
SETS: dict[str, dict[str, Any]] = {
    "hippocampus": {"pixdim": [1.0, 1.0, 1.0], "spatial_size": [48, 64, 48], "merged": None},
    "ixi_brain": {"pixdim": [4.0, 4.0, 4.0], "spatial_size": [64, 64, 48], "merged": "coarse_labels"},
}
"""The grid of each, and the entry of its ``dataset.json`` that merges label codes."""
MODEL = str(BUNDLE / "models" / "model.pt")
SUBJECT = {"hippocampus": lambda path: (int(path[-10:-7]) + 1) // 2, "ixi_brain": None}
"""How files belong to subjects, as in ``shipped.json``."""
ARMS = {"plain vote": ("majority", False), "local agreement": ("similarity", False)}
ARMS["and the linear layer"] = ("similarity", True)


def chosen(name: str, folder: Path, targets: int, atlases: int, out: Path) -> list[list[dict[str, str]]]:
    """Scans to label and atlases, one of a subject, with the label maps that are used."""
    scans = find_scans(str(folder), SUBJECT[name])
    seen = {scan["subject"] for scan in seen_scans(scans, MODEL)}
    first = {scan["subject"]: scan for scan in reversed(scans)}
    parts = [sorted(first.keys() - seen), sorted(seen)]
    random = np.random.default_rng(0)
    taken = [
        [part[i] for i in random.permutation(len(part))[:n]] for part, n in zip(parts, (targets, atlases), strict=True)
    ]
    return [[with_label(first[subject], name, folder, out) for subject in part] for part in taken]


def with_label(scan: Mapping[str, Any], name: str, folder: Path, out: Path) -> dict[str, str]:
    """Paths of a scan and of its label map, its codes merged where the set has too many."""
    merged = SETS[name]["merged"]
    if merged is None:
        return {"image": scan["image"], "label": scan["label"]}
    groups = json.loads((folder / "dataset.json").read_text())[merged]
    source = nib.Nifti1Image.from_filename(scan["label"])
    values, codes = np.asarray(source.dataobj), np.zeros(source.shape, np.uint8)
    for code, group in enumerate(groups, 1):
        codes[np.isin(values, group["source_values"])] = code
    path = out / "labels" / Path(scan["image"]).name
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(codes, source.affine), path)
    return {"image": scan["image"], "label": str(path)}


def dice(carried: CarriedLabels, truth: np.ndarray) -> float:
    """Mean over the structures that the scan has."""
    found = carried.codes.numpy()
    codes = [code for code in np.unique(truth) if code]
    return fmean(2 * np.sum((found == k) & (truth == k)) / (np.sum(found == k) + np.sum(truth == k)) for k in codes)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--atlases", type=int, nargs="+", default=[1, 3, 7])
    parser.add_argument("--refine", type=int, default=0)
    args = parser.parse_args()
    if not (args.data / "dataset.json").is_file():
        raise InputError(f"{args.data} holds no dataset.json: pass the folder of the set itself, as DATA/{args.set}")
    args.out.mkdir(parents=True, exist_ok=True)
    scans, atlases = chosen(args.set, args.data, args.targets, max(args.atlases), args.out)
    config = ConfigParser()
    config.read_config(str(BUNDLE / "configs" / "inference.json"))
    grid = {key: SETS[args.set][key] for key in ("pixdim", "spatial_size")}
    config.update({"bundle_root": str(BUNDLE), "refine": args.refine, **grid})
    network, inferer, prepare = (config.get_parsed_content(key) for key in ("network", "inferer", "preprocessing"))
    ModelLoader(network, MODEL)()
    network.eval()
    pairs = [{"moving": atlas["image"], "label": atlas["label"]} for atlas in atlases]
    readers = {count: AtlasReader(network.backbone, pairs[:count], prepare) for count in args.atlases}
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for number, scan in enumerate(scans, 1):
        truth = np.asarray(nib.Nifti1Image.from_filename(scan["label"]).dataobj)
        votes = {"majority": LabelVote("majority"), "similarity": LabelVote("similarity")}
        for count, pair in enumerate(pairs, 1):
            data = list_data_collate([prepare({"image": scan["image"], **pair})])
            with torch.no_grad():
                others = (data[key] for key in ("moving", "original_image", "original_moving"))
                data["pred"] = inferer(data["image"], network, *others)
            for vote in votes.values():
                vote.add(data)
            for arm, (vote_name, reads) in ARMS.items() if count in args.atlases else ():
                carried = copy.deepcopy(votes[vote_name]).close(data, readers[count] if reads else None)
                sure = carried.confidence[carried.codes != 0].mean()
                found.setdefault((count, arm), []).append((dice(carried, truth), float(sure)))
        print(f"{number} of {len(scans)}: {Path(scan['image']).name}", flush=True)
    lines = [
        "| atlases | " + " | ".join(ARMS) + " | confidence against Dice, Spearman |",
        "|---" * (len(ARMS) + 2) + "|",
    ]
    for count in args.atlases:
        means = [f"{fmean(value for value, _ in found[count, arm]):.3f}" for arm in ARMS]
        ranks = spearmanr(np.array(found[count, list(ARMS)[-1]])).statistic
        lines.append(f"| {count} | " + " | ".join(means) + f" | {ranks:.2f} |")
    text = "\n".join([f"{args.set}: {len(scans)} scans, refine {args.refine}", "", *lines, ""])
    (args.out / f"carried_{args.set}_{args.refine}.md").write_text(text, encoding="utf-8")
    rows = {f"{count} {arm}": values for (count, arm), values in found.items()}
    (args.out / f"carried_{args.set}_{args.refine}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    show_one_line()
    main()
