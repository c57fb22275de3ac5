# SPDX-License-Identifier: Apache-2.0

"""Labels carried over from atlases: what is voted, how sure that is, and what no atlas sees."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np
import pytest
import scripts.matching.write_match
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.matching import VoteLabels, label_probabilities
from scripts.matching.label_vote import count_votes
from scripts.spatial import resample

SIZE = (10, 8, 6)


def pair(
    label: torch.Tensor,
    offset: float = 0,
    votes: int = 1,
    similar: bool | slice = True,
    result: str = "scan",
    inliers: float = 0.95,
) -> dict:
    """
    A batch of a scan and an atlas on the same grid; the atlas's label map lies ``offset`` voxels further right, and it
    is alike everywhere, nowhere or in a part of the first axis.
    """
    image = torch.as_tensor(np.random.default_rng(0).random((1, 1, *SIZE)), dtype=torch.float32)
    affine = torch.eye(4, dtype=torch.float64)[None]
    shifted = affine.clone()
    shifted[0, 0, 3] = offset

    def scan(values: torch.Tensor, where: torch.Tensor = affine) -> MetaTensor:
        batch = MetaTensor(values, affine=where)
        batch.meta["filename_or_obj"] = ["folder/scan.nii.gz"]
        return batch

    pred = {
        "displacement": torch.zeros(1, 3, *SIZE),
        "local_displacement": torch.zeros(1, 3, *SIZE),
        "affine": torch.eye(4)[None, :3],
        "warped": torch.zeros_like(image),
        "agreement": torch.tensor([0.9]),
        "inliers": torch.tensor([inliers]),
        "conditioning": torch.tensor([0.5]),
    }
    alike = slice(None) if similar is True else similar
    if alike is not False:
        pred["warped"][:, :, alike] = image[:, :, alike]
    return {
        "image": scan(image),
        "moving": scan(image),
        "original_image": scan(image),
        "original_label": scan(label.reshape(1, 1, *SIZE).float(), shifted),
        "pred": pred,
        "votes": [votes],
        "result": [result],
    }


def volume(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("similar", [True, False])
def test_places_that_no_atlas_sees_are_background_and_counted(tmp_path, capsys, similar):
    """An atlas without background, three voxels off: the lowest of its codes used to fill what it does not cover."""
    label = torch.full(SIZE, 7)
    label[:, 4:] = 9
    found = VoteLabels(str(tmp_path))(pair(label, offset=3, similar=similar))
    written = volume(tmp_path / "scan.nii.gz")
    assert not written[:3].any()
    assert set(np.unique(written[3:, :4])) == {7}
    assert set(np.unique(written[3:, 4:])) == {9}
    assert found["unseen_voxels"] == 3 * 8 * 6
    assert "no atlas reaches 30.0 %" in capsys.readouterr().out


def test_what_one_atlas_sees_is_seen(tmp_path, capsys):
    """Two atlases that lie apart cover the scan together, and nothing is said; the next scan starts anew."""
    vote = VoteLabels(str(tmp_path), vote="majority")
    first = vote(pair(torch.full(SIZE, 7), offset=5, votes=2))
    assert "unseen_voxels" not in first
    assert vote(pair(torch.full(SIZE, 8), offset=-5, votes=2))["unseen_voxels"] == 0
    written = volume(tmp_path / "scan.nii.gz")
    assert set(np.unique(written[:5])) == {8}
    assert set(np.unique(written[5:])) == {7}
    assert capsys.readouterr().out == ""
    assert vote(pair(torch.full(SIZE, 9), offset=5))["unseen_voxels"] == 5 * 8 * 6


def test_each_place_goes_to_the_atlas_that_is_alike_there(tmp_path):
    """The first atlas shows the scan in its left half, the second in its right one; windows reach two voxels."""
    vote = VoteLabels(str(tmp_path), vote="similarity")
    vote(pair(torch.full(SIZE, 7), votes=2, similar=slice(0, 5)))
    vote(pair(torch.full(SIZE, 8), votes=2, similar=slice(5, 10)))
    written, confidence = volume(tmp_path / "scan.nii.gz"), volume(tmp_path / "confidence" / "scan.nii.gz")
    assert set(np.unique(written[:3])) == {7}
    assert set(np.unique(written[7:])) == {8}
    assert confidence[:3].min() > 0.9
    assert confidence[7:].min() > 0.9


def test_confidence_is_the_share_of_the_votes(tmp_path):
    """Two of three atlases say 7 where the third says 8; where no atlas is, nobody is sure of anything."""
    vote = VoteLabels(str(tmp_path), vote="majority")
    other = torch.full(SIZE, 7)
    other[:, :4] = 8
    for label in (torch.full(SIZE, 7), other, torch.full(SIZE, 7)):
        vote(pair(label, votes=3, offset=2))
    confidence = volume(tmp_path / "confidence" / "scan.nii.gz")
    np.testing.assert_allclose(confidence[2:, :4], 2 / 3, atol=1e-5)
    np.testing.assert_allclose(confidence[2:, 4:], 1, atol=1e-5)
    assert not confidence[:2].any()
    assert nib.load(tmp_path / "confidence" / "scan.nii.gz").shape == SIZE


@pytest.mark.parametrize("vote", ["majority", "similarity"])
def test_confidence_in_a_single_atlas_is_its_local_likeness(tmp_path, vote):
    VoteLabels(str(tmp_path), vote)(pair(torch.full(SIZE, 7), similar=slice(0, 5)))
    confidence = volume(tmp_path / "confidence" / "scan.nii.gz")
    np.testing.assert_allclose(confidence[:3], 1, atol=1e-4)
    assert confidence[8:].max() < 0.1


def test_the_table_begins_with_what_to_look_at(tmp_path, capsys):
    """
    A match that cannot be trusted comes first whatever its confidence, then the doubtful; a label is missing too. Such
    lines are on the screen too, with why.
    """
    vote = VoteLabels(str(tmp_path), trusted={"agreement": [0.72, 1.0], "inliers": [0.8, 1.0]})
    label = torch.full(SIZE, 7)
    vote(pair(label, result="good"))
    vote(pair(label, result="doubtful", similar=slice(0, 5)))
    vote(pair(label, result="untrusted", inliers=0.3))
    vote(pair(0 * label, result="empty"))
    for inliers in (0.3, 0.95):  # one of two can be trusted
        vote(pair(label, result="two", votes=2, inliers=inliers, similar=slice(0, 9)))
    with (tmp_path / "propagation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["result"], row["look_at"], row["atlases"]) for row in rows] == [
        ("empty", "yes", "1"),
        ("untrusted", "yes", "1"),
        ("doubtful", "no", "1"),
        ("good", "no", "1"),
        ("two", "no", "2"),
    ]
    assert float(rows[2]["confidence"]) == pytest.approx(0.5, abs=0.15)
    assert float(rows[3]["agreement"]) == pytest.approx(1, abs=1e-3)
    assert {row["unseen_percent"] for row in rows} == {"0.0"}
    match = "folder/scan.nii.gz (inliers 0.3, trusted from 0.8)"  # the atlas has the scan's own name here
    assert capsys.readouterr().out.splitlines() == [
        f"look at the labels of folder/scan.nii.gz: no match can be trusted, as that of {match}",
        "look at the labels of folder/scan.nii.gz: no voxel got a label",
    ]


def test_probabilities_find_their_positions_once(monkeypatch):
    """However many codes there are; the values are those of each code resampled by itself."""
    label = torch.as_tensor(np.random.default_rng(0).integers(0, 12, (1, *SIZE)))
    where = (torch.eye(4), torch.full((3, *SIZE), 0.3), torch.eye(4))
    codes, calls = torch.unique(label), []
    positions = scripts.matching.write_match.sampling_positions

    def counted(*args):
        calls.append(args)
        return positions(*args)

    monkeypatch.setattr(scripts.matching.write_match, "sampling_positions", counted)
    shares = label_probabilities(label, codes, *where)
    assert len(calls) == 1
    expected = torch.cat([resample((label == code).float(), *where) for code in codes])
    torch.testing.assert_close(shares, expected)


def test_a_reader_votes_too(tmp_path):
    """Atlas and reader differ: the one with more weight decides, and the confidence is its share."""
    label = torch.full(SIZE, 7)

    def read(image):
        assert image.shape == (1, 1, *SIZE)
        return [0, 9], torch.stack([torch.zeros(SIZE), torch.ones(SIZE)])

    for share, winner in ((0.2, 7), (0.6, 9)):
        vote = VoteLabels(str(tmp_path / str(share)), reader=read, reader_share=share)
        vote(pair(label, votes=2))
        vote(pair(label, votes=2))
        assert set(np.unique(volume(tmp_path / str(share) / "scan.nii.gz"))) == {winner}
        confidence = volume(tmp_path / str(share) / "confidence" / "scan.nii.gz")
        np.testing.assert_allclose(confidence, max(share, 1 - share), atol=1e-5)
    VoteLabels(str(tmp_path / "none"), reader=read, reader_share=0)(pair(label))
    assert set(np.unique(volume(tmp_path / "none" / "scan.nii.gz"))) == {7}


def test_a_reader_does_not_label_what_no_atlas_sees(tmp_path):
    def read(image):
        return [9], torch.ones(1, *SIZE)

    VoteLabels(str(tmp_path), reader=read, reader_share=0.9)(pair(torch.full(SIZE, 7), offset=3))
    assert not volume(tmp_path / "scan.nii.gz")[:3].any()


@pytest.mark.parametrize("share", [-0.1, 1])
def test_the_share_of_a_reader_is_checked(tmp_path, share):
    with pytest.raises(InputError, match="share of the linear layer"):
        VoteLabels(str(tmp_path), reader_share=share)


def test_an_atlas_that_lies_beside_the_scan_ends_no_run(tmp_path, capsys):
    """Alone it labels nothing, and the result is one to look at; beside another it has no say."""
    beside = pair(torch.full(SIZE, 7))
    beside["pred"]["displacement"] += 100
    beside["pred"]["affine"] = torch.eye(4)[None, :3] + torch.tensor([0.0, 0, 0, 100])
    vote = VoteLabels(str(tmp_path))
    assert vote(beside)["unseen_voxels"] == np.prod(SIZE)
    assert not volume(tmp_path / "scan.nii.gz").any()
    with (tmp_path / "propagation.csv").open(newline="") as file:
        assert [row["look_at"] for row in csv.DictReader(file)] == ["yes"]
    why = "no voxel got a label; no match can be trusted, as that of folder/scan.nii.gz (it lies beside the scan)"
    assert f"look at the labels of folder/scan.nii.gz: {why}\n" in capsys.readouterr().out
    vote({**beside, "votes": [2]})
    assert vote(pair(torch.full(SIZE, 8), votes=2))["unseen_voxels"] == 0
    assert set(np.unique(volume(tmp_path / "scan.nii.gz"))) == {8}


@pytest.mark.parametrize("partial", [True, False])
def test_an_atlas_votes_against_what_it_lacks_unless_it_was_not_drawn(tmp_path, partial):
    """7 was drawn in the first of three atlases alone, 9 in the second and third; the structures touch nowhere."""
    maps = [torch.zeros(SIZE) for _ in range(3)]
    maps[0][:3] = 7
    for label in maps[1:]:
        label[6:] = 9
    vote = VoteLabels(str(tmp_path), vote="majority", partial_labels=partial)
    for label in maps:
        vote(pair(label, votes=3))
    written, confidence = volume(tmp_path / "scan.nii.gz"), volume(tmp_path / "confidence" / "scan.nii.gz")
    assert set(np.unique(written[:3])) == {7 if partial else 0}
    assert set(np.unique(written[6:])) == {9}
    assert not written[3:6].any()
    np.testing.assert_allclose(confidence[:3], 1 if partial else 2 / 3, atol=1e-5)
    np.testing.assert_allclose(confidence[6:], 1 if partial else 2 / 3, atol=1e-5)
    np.testing.assert_allclose(confidence[3:6], 1, atol=1e-5)


def test_shares_where_not_all_have_a_say():
    """
    Weights 1 and 3, both of the background: where the first alone shows 7, half in the voxel, the background is the
    other half; two structures that are both sure share the place; as whole maps count, where all have shown all.
    """
    one, three = torch.ones(1), torch.full((1,), 3.0)
    half = count_votes({0: 0.5 * one + three, 7: 0.5 * one}, one + three, {0: one + three, 7: one})
    assert {code: float(share) for code, share in half.items()} == {0: 0.5, 7: 0.5}
    both = count_votes({0: 0 * one, 7: one, 9: three}, one + three, {0: one + three, 7: one, 9: three})
    assert {code: float(share) for code, share in both.items()} == {0: 0, 7: 0.5, 9: 0.5}
    votes, all_of_them = {0: 1.5 * one, 7: 2 * one, 9: 0.5 * one}, one + three
    whole = count_votes(votes, all_of_them, dict.fromkeys(votes, all_of_them))
    assert whole.keys() == votes.keys()
    for code, share in count_votes(votes, all_of_them).items():
        torch.testing.assert_close(whole[code], share)


@pytest.mark.parametrize("vote", ["majority", "similarity"])
def test_an_atlas_that_does_not_reach_leaves_the_others_their_background(tmp_path, vote):
    """With partial labels, too, a structure's border lies where the one atlas that reaches it says."""
    label, beside = torch.zeros(SIZE), pair(torch.full(SIZE, 9), offset=100, votes=2)
    label[:5] = 7  # 0.3 of it in the voxel behind
    alone, together = (VoteLabels(str(tmp_path / name), vote, partial_labels=True) for name in ("alone", "together"))
    seen = pair(label, offset=0.3)
    alone(seen)
    together(beside)
    together({**seen, "votes": [2]})
    found = [volume(tmp_path / name / "scan.nii.gz") for name in ("alone", "together")]
    np.testing.assert_array_equal(found[0], found[1])
    assert set(np.unique(found[1])) == {0, 7}
