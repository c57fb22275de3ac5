# SPDX-License-Identifier: Apache-2.0

"""Lists of pairs: what is found, and every refusal."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from scripts.data import check_label
from scripts.errors import InputError
from scripts.matching import expand, list_pairs, list_propagation, list_scans


def save(path, values=None, affine=None, dtype=np.float32):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(0).random((8, 9, 7)) if values is None else values
    nib.save(nib.Nifti1Image(array.astype(dtype), np.eye(4) if affine is None else affine), path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Three scans with label maps and a dataset.json."""
    for name in "abc":
        save(tmp_path / "imagesTr" / f"{name}.nii.gz")
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", np.eye(9, 7)[None].repeat(8, 0) * 500, dtype=np.uint16)
    training = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in "abc"]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": training}))
    return tmp_path


def test_folder_alone_matches_all_to_its_first_scan(folder):
    pairs = list_pairs(str(folder))
    assert [(p["image"][-8:], p["moving"][-8:], p["label"][-8:]) for p in pairs] == [
        ("a.nii.gz", "b.nii.gz", "b.nii.gz"),
        ("a.nii.gz", "c.nii.gz", "c.nii.gz"),
    ]


def test_fixed_and_moving_patterns_with_labels(folder):
    images, labels = str(folder / "imagesTr"), str(folder / "labelsTr")
    pairs = list_pairs(fixed=f"{images}/a.nii.gz", moving=f"{images}/[bc].nii.gz", moving_label=f"{labels}/[bc].nii.gz")
    assert [(p["moving"], p["label"]) for p in pairs] == [
        (f"{images}/b.nii.gz", f"{labels}/b.nii.gz"),
        (f"{images}/c.nii.gz", f"{labels}/c.nii.gz"),
    ]
    assert len(expand([images, f"{labels}/a.nii.gz"])) == 4


def test_fixed_scan_among_the_moving_keeps_labels_in_step(folder):
    images, labels = str(folder / "imagesTr"), str(folder / "labelsTr")
    pairs = list_pairs(fixed=f"{images}/a.nii.gz", moving=f"{images}/*.nii.gz", moving_label=f"{labels}/*.nii.gz")
    assert [(p["moving"][-8:], p["label"][-8:]) for p in pairs] == [("b.nii.gz",) * 2, ("c.nii.gz",) * 2]


def test_pairs_file_is_relative_to_itself(folder):
    listed = [{"image": "imagesTr/a.nii.gz", "moving": "imagesTr/c.nii.gz", "moving_label": "labelsTr/c.nii.gz"}]
    (folder / "pairs.json").write_text(json.dumps(listed))
    (pair,) = list_pairs(pairs=str(folder / "pairs.json"))
    assert pair == {
        "image": str(folder / "imagesTr/a.nii.gz"),
        "moving": str(folder / "imagesTr/c.nii.gz"),
        "label": str(folder / "labelsTr/c.nii.gz"),
        "result": "c_to_a",
    }


def test_refusals_name_the_culprit(folder):
    a, b = (str(folder / "imagesTr" / f"{name}.nii.gz") for name in "ab")
    with pytest.raises(InputError, match=r"nowhere\.nii.*does not exist"):
        list_pairs(fixed=a, moving="nowhere.nii")
    with pytest.raises(InputError, match=r"missing\.nii does not exist"):
        list_pairs(fixed="missing.nii", moving=b)
    with pytest.raises(InputError, match="2 scans have 1 label maps"):
        list_pairs(fixed="x", moving=[a, b], moving_label=[a])
    with pytest.raises(InputError, match="nothing to match"):
        list_pairs()
    with pytest.raises(InputError, match="no moving scan"):
        list_pairs(fixed=a, moving=a)
    with pytest.raises(InputError, match="has no 'moving'"):
        list_pairs(pairs=[{"image": a}])
    (folder / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json is no JSON list"):
        list_pairs(pairs=str(folder / "broken.json"))
    (folder / "imagesTr" / "bad.nii.gz").write_bytes(b"no scan")
    with pytest.raises(InputError, match=r"bad\.nii\.gz cannot be read"):
        list_pairs(fixed=a, moving=str(folder / "imagesTr" / "bad.nii.gz"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("dataset_dir", "fixed", "moving_label"), "label maps go with --fixed and --moving"),
        (("dataset_dir", "moving_label"), "label maps go with --fixed and --moving"),
        (("dataset_dir", "moving"), "--moving goes with --fixed: pass --fixed"),
        (("pairs", "moving_label"), "in --pairs name them there, 'moving_label'"),
        (("pairs", "fixed"), "leave --fixed and --moving out"),
        (("pairs", "moving"), "leave --fixed and --moving out"),
    ],
)
def test_options_that_would_not_be_used_are_refused(folder, given, message):
    """Before, they were dropped: other pairs were matched, or no labels carried."""
    a, b, label = (str(folder / name) for name in ("imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/b.nii.gz"))
    every = {"dataset_dir": str(folder), "fixed": a, "moving": b, "moving_label": label}
    every["pairs"] = [{"image": a, "moving": b}]
    with pytest.raises(InputError, match=message):
        list_pairs(**{name: every[name] for name in given})
    (pair,) = list_pairs(dataset_dir=str(folder), fixed=a, moving=b, moving_label=label)  # as the messages say
    assert (pair["moving"], pair["label"]) == (b, label)
    (pair,) = list_pairs(pairs=[{**every["pairs"][0], "moving_label": label}])
    assert pair["label"] == label


def test_labels_that_are_named_and_missing_are_told(folder, capsys):
    missing = folder / "labelsTr" / "c.nii.gz"
    missing.unlink()
    assert ["label" in pair for pair in list_pairs(str(folder))] == [True, False]
    assert f"1 of 2 moving scans have no label: {missing} is missing" in capsys.readouterr().out


def test_label_maps_that_do_not_fit_are_refused(tmp_path):
    image = save(tmp_path / "scan.nii.gz")
    good = np.zeros((8, 9, 7))
    good[2:4] = 205
    check_label(image, save(tmp_path / "good.nii.gz", good, dtype=np.uint8), codes=[0, 205])
    check_label(image, save(tmp_path / "empty.nii.gz", 0 * good, dtype=np.uint8))
    with pytest.raises(InputError, match=r"small\.nii\.gz has another geometry"):
        check_label(image, save(tmp_path / "small.nii.gz", good[:-1], dtype=np.uint8))
    with pytest.raises(InputError, match=r"shifted\.nii\.gz has another geometry"):
        check_label(image, save(tmp_path / "shifted.nii.gz", good, np.diag([2, 1, 1, 1])))
    with pytest.raises(InputError, match=r"half\.nii\.gz holds 102\.5, which is no label"):
        check_label(image, save(tmp_path / "half.nii.gz", good / 2))
    with pytest.raises(InputError, match=r"negative\.nii\.gz holds -205"):
        check_label(image, save(tmp_path / "negative.nii.gz", -good))
    with pytest.raises(InputError, match=r"good\.nii\.gz holds the unknown label 205"):
        check_label(image, str(tmp_path / "good.nii.gz"), codes=[0, 1])


def test_propagation_pairs_every_scan_with_every_atlas(folder):
    images, labels = folder / "imagesTr", folder / "labelsTr"
    pairs = list_propagation(str(folder), f"{images}/[ab].nii.gz", f"{labels}/[ab].nii.gz")
    assert [(p["image"][-8:], p["moving"][-8:], p["votes"]) for p in pairs] == [
        ("c.nii.gz", "a.nii.gz", 2),
        ("c.nii.gz", "b.nii.gz", 2),
    ]
    with pytest.raises(InputError, match="--atlas"):
        list_propagation(str(folder), None, None)
    with pytest.raises(InputError, match="2 scans have 1 label maps"):
        list_propagation(str(folder), f"{images}/[ab].nii.gz", f"{labels}/a.nii.gz")


def test_names_with_brackets_are_no_patterns(folder, tmp_path):
    """What exists under its name is meant; a pattern below a folder with brackets is one."""
    images = tmp_path / "of [2024]"
    paths = [save(images / f"s{n} [T1].nii.gz") for n in range(3)]
    save(images / "s1 T.nii.gz")  # what the pattern "s1 [T1].nii.gz" would find
    (images / "s1 [T1].json").write_text("{}")
    assert expand(paths[1]) == [paths[1]]
    assert expand(f"{images}/s*[[]T1[]]*") == paths
    (pair,) = list_pairs(fixed=paths[0], moving=paths[1])
    assert (pair["moving"], pair["result"]) == (paths[1], "s1 [T1]_to_s0 [T1]")


def test_one_file_name_in_every_folder(folder, tmp_path):
    """Results are named by what tells them apart, and recorded; another run does not write over them."""
    kits, out = tmp_path / "kits", str(tmp_path / "out")
    paths = [save(kits / f"case_{n}" / "imaging.nii.gz") for n in range(4)]
    pairs = list_pairs(fixed=paths[0], moving=f"{kits}/case_[1-3]/imaging.nii.gz", output_dir=out)
    expected = [f"case_{n}_imaging_to_case_0_imaging" for n in (1, 2, 3)]
    assert [pair["result"] for pair in pairs] == expected
    assert [pair["result"] for pair in list_pairs(str(kits), output_dir=out)] == expected  # the same run again
    labels = {"atlas": paths[0], "atlas_label": f"{folder}/labelsTr/a.nii.gz"}
    propagated = list_propagation(str(kits), **labels, output_dir=str(tmp_path / "labels"))
    assert [pair["result"] for pair in propagated] == [f"case_{n}_imaging" for n in (1, 2, 3)]
    assert [scan["result"] for scan in list_scans(str(kits))] == [f"case_{n}_imaging" for n in range(4)]


def test_label_maps_are_not_written_over_their_scans(folder):
    images, labels = folder / "imagesTr", folder / "labelsTr"
    with pytest.raises(InputError, match=r"is an input of this run.*another --output_dir"):
        list_propagation(str(images), f"{images}/a.nii.gz", f"{labels}/a.nii.gz", str(images))


@pytest.mark.parametrize("spelling", ["./imagesTr/a.nii.gz", "imagesTr/../imagesTr/a.nii.gz", "link.nii.gz"])
def test_a_scan_is_not_matched_with_itself_however_it_is_spelt(folder, monkeypatch, spelling):
    """A relative path, a detour and a link are the scan itself, which is left out of the moving ones."""
    (folder / "link.nii.gz").symlink_to(folder / "imagesTr" / "a.nii.gz")
    monkeypatch.chdir(folder)
    for pairs in (
        list_pairs(fixed=spelling, moving=f"{folder}/imagesTr/*.nii.gz"),
        list_pairs(str(folder), fixed=spelling),
        list_propagation(str(folder), spelling, "labelsTr/a.nii.gz"),
    ):
        assert [pair["moving" if "votes" not in pair else "image"][-8:] for pair in pairs] == ["b.nii.gz", "c.nii.gz"]


NUMBERS = (1, 2, 10)


def numbered(folder, scan="scan_{}", label="scan_{}_seg", place=""):
    """Scans and label maps whose patterns sort otherwise: each map has its scan's number."""
    images, maps = [], []
    for n in NUMBERS:
        images.append(save(folder / "scans" / f"{scan.format(n)}.nii.gz"))
        values = np.zeros((8, 9, 7))
        values[2:4] = n
        maps.append(save(folder / "labels" / place / f"{label.format(n)}.nii.gz", values, dtype=np.uint8))
    return images, maps


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("scan_{}", "scan_{}_seg"),
        ("p{}/t1", "p{}_t1_label"),
        ("case{}_0000", "case{}"),
        ("Mu\u0308ller {}", "Müller {}-label"),
    ],
)
def test_label_maps_go_with_the_scans_of_their_names(tmp_path, capsys, scan, label):
    """However patterns, folders and lists sort them."""
    images, maps = numbered(tmp_path, scan, label)
    fixed = save(tmp_path / "fixed.nii.gz")
    right = dict(zip(images, maps, strict=True))
    pattern = f"{tmp_path}/scans/**/*.nii.gz"
    for moving, labels in ((pattern, f"{tmp_path}/labels/*.nii.gz"), (images, [*maps[1:], maps[0]])):
        pairs = list_pairs(fixed=fixed, moving=moving, moving_label=labels)
        assert {pair["moving"]: pair["label"] for pair in pairs} == right
    assert "label maps go with the scans of their names" in capsys.readouterr().out
    propagated = list_propagation(fixed, pattern, [*maps[1:], maps[0]])
    assert {pair["moving"]: pair["label"] for pair in propagated} == right


def test_label_maps_of_other_names_go_by_their_order_unless_it_contradicts(tmp_path):
    images, maps = numbered(tmp_path, label="drawn_by_{}_ab")
    fixed = save(tmp_path / "fixed.nii.gz")
    pairs = list_pairs(fixed=fixed, moving=images, moving_label=maps)
    assert [pair["label"] for pair in pairs] == maps
    other = save(tmp_path / "labels" / "scan_1_again.nii.gz", np.ones((8, 9, 7)), dtype=np.uint8)
    with pytest.raises(InputError, match=r"scan_1_again.nii.gz would go with .*scan_2.* one by one as a list"):
        list_pairs(fixed=fixed, moving=images, moving_label=[maps[0], other, maps[2]])
    pairs = list_pairs(fixed=fixed, moving=images, moving_label=[other, maps[1], maps[2]])  # as the message says
    assert [pair["label"] for pair in pairs] == [other, maps[1], maps[2]]


def test_label_maps_without_a_structure(folder, tmp_path, capsys):
    """There is nothing to carry; of one among several it is said."""
    a, b = (str(folder / "imagesTr" / f"{name}.nii.gz") for name in "ab")
    empty = save(tmp_path / "empty.nii.gz", np.zeros((8, 9, 7)), dtype=np.uint8)
    with pytest.raises(InputError, match=r"empty .background alone.*name label maps with structures, or none"):
        list_propagation(str(folder), a, empty)
    label = str(folder / "labelsTr" / "b.nii.gz")
    assert list_propagation(str(folder), b, label)
    assert len(list_propagation(str(folder), [a, b], [empty, label])) == 2
    assert f"1 of 2 label maps are empty (background alone), as {empty}" in capsys.readouterr().out


def test_a_misspelt_entry_of_a_pair_is_refused(folder):
    a, b, label = (str(folder / name) for name in ("imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/b.nii.gz"))
    with pytest.raises(InputError, match="has a 'moving_lable': its entries are image, moving, moving_label, points"):
        list_pairs(pairs=[{"image": a, "moving": b, "moving_lable": label}])
    assert list_pairs(pairs=[{"image": a, "moving": b, "moving_label": label}])[0]["label"] == label


def test_a_pair_is_matched_once(folder):
    a, b = (str(folder / "imagesTr" / f"{name}.nii.gz") for name in "ab")
    assert len(list_pairs(fixed=a, moving=[b, b])) == 1
    label, other = (str(folder / "labelsTr" / f"{name}.nii.gz") for name in "ab")
    pairs = [{"image": a, "moving": b, "moving_label": path} for path in (label, other)]
    with pytest.raises(InputError, match="twice"):
        list_pairs(pairs=pairs, output_dir=str(folder / "out"))


def test_a_pattern_leaves_label_maps_out(tmp_path, capsys):
    paths = [save(tmp_path / f"p{n}.nii.gz") for n in range(2)]
    mask = np.zeros((8, 9, 7))
    mask[2:5, 2:6, 2:5] = 1
    label = save(tmp_path / "p1_seg.nii.gz", mask, dtype=np.uint8)
    assert expand(f"{tmp_path}/p*.nii.gz") == paths
    assert "left out 1 label maps" in capsys.readouterr().out
    assert len(list_pairs(str(tmp_path), label_maps=True)) == 2  # as the message says
    assert expand(f"{tmp_path}/p*_seg.nii.gz") == expand(label) == [label]  # nothing else is meant
