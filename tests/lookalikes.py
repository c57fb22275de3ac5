# SPDX-License-Identifier: Apache-2.0

"""
Tiny look-alikes of the paper's four data sets: folders, file names, formats and label codes as they are downloaded,
with a simple anatomy that a small network could learn.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
from support import write_nifti

HEART_CODES = (205, 420, 500, 550, 600, 820, 850)
BRAIN_CODES = (
    *(2, 3, 4, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 28),
    *(41, 42, 43, 46, 47, 49, 50, 51, 52, 53, 54, 60),
)
BRAIN_OTHER = (5, 26, 30, 44, 58, 62)
"""Codes in the files that are none of the 28 structures."""
HEART_AFFINE = np.array([[0, -4.5, 0, 80], [4.0, 0, 0, -70], [0, 0, 5.0, -900], [0, 0, 0, 1]])


def _distance(shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Below 1 inside an ellipsoid; all lengths as shares of the volume's size."""
    grid = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij"), axis=-1)
    return np.sqrt((((grid - centre) / radii) ** 2).sum(axis=-1))


def write_heart(folder: Path, train: int = 6, test: int = 2) -> Path:
    """
    MM-WHS 2017 CT: ``ct_train/ct_train_1001_image.nii.gz`` with ``_label``, ``ct_test/ct_test_2001_image.nii.gz``
    without; MR beside it. The third case has code 421 in place of 420.
    """
    shape = (36, 32, 28)
    centres = {500: (-0.5, 0.3), 600: (0.5, 0.4), 420: (-0.4, -0.5), 550: (0.5, -0.4), 820: (0, 0), 850: (0, -0.9)}
    for kind, count in {"train": train, "test": test}.items():
        for number in range(1, count + 1):
            rng = np.random.default_rng([len(kind), number])
            middle = 0.5 + rng.uniform(-0.05, 0.05, 3)
            size = rng.uniform(0.9, 1.1)
            image = np.where(_distance(shape, np.full(3, 0.5), np.array([0.48, 0.45, 2.0])) < 1, -800.0, -1000.0)
            label = np.zeros(shape, np.int16)
            muscle = _distance(shape, middle + size * np.array([-0.07, 0.04, 0]), size * np.array([0.14, 0.14, 0.16]))
            label[muscle < 1] = 205
            for code, (x, y) in centres.items():
                centre = middle + 0.14 * size * np.array([x, y, 0.3 if code in (820, 850) else 0])
                radii = size * np.array([0.04, 0.04, 0.2] if code in (820, 850) else [0.08, 0.08, 0.1])
                label[_distance(shape, centre, radii) < 1] = code
            image[label > 0] = 60
            for place, code in enumerate(HEART_CODES[1:]):
                image[label == code] = 250 + 30 * place
            if kind == "train" and number == 3:
                label[label == 420] = 421
            image = (image + rng.normal(0, 20, shape)).astype(np.int16)
            name = f"ct_{kind}_{1000 * (1 + (kind == 'test')) + number}"
            write_nifti(folder / f"ct_{kind}" / f"{name}_image.nii.gz", image, HEART_AFFINE)
            if kind == "train":
                write_nifti(folder / f"ct_{kind}" / f"{name}_label.nii.gz", label, HEART_AFFINE)
    write_nifti(folder / "mr_train" / "mr_train_1001_image.nii.gz", image, HEART_AFFINE)
    return folder


def write_itk_volume(path: Path, volume: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...]) -> None:
    """Write a compressed volume whose axes run left, posterior, superior, as ITK counts."""
    image = itk.image_from_array(np.ascontiguousarray(volume.T))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(image, str(path), compression=True)


def write_coronary(folder: Path, each: int = 4) -> Path:
    """ASOCA 2020: ``Normal/CTCA/Normal_1.nrrd`` with ``Normal/Annotations/Normal_1.nrrd``, and ``Diseased``."""
    shape = (40, 40, 24)
    for group in ("Normal", "Diseased"):
        for number in range(1, each + 1):
            rng = np.random.default_rng([len(group), number])
            height = (np.arange(shape[2]) + 0.5) / shape[2]
            vessel = np.zeros(shape, np.uint8)
            for side in (-1, 1):
                bend = side * (0.1 + 0.15 * np.sin(np.pi * height + rng.uniform(-0.3, 0.3)))
                for z, (x, y) in enumerate(zip(0.5 + bend, 0.5 + 0.2 * (height - 0.5), strict=True)):
                    wide = 0.06 if group == "Diseased" and 0.4 < height[z] < 0.6 else 0.08
                    vessel[:, :, z] |= _distance(shape[:2], np.array([x, y]), np.array([wide, wide])) < 1
            heart = _distance(shape, np.full(3, 0.5), np.array([0.35, 0.35, 0.7])) < 1
            image = np.where(heart, 80, -850) + 300.0 * vessel + rng.normal(0, 20, shape)
            where = {"spacing": (0.9, 0.9, 1.2), "origin": (-20.0, -130.0, 1500.0)}
            write_itk_volume(folder / group / "CTCA" / f"{group}_{number}.nrrd", image.astype(np.int16), **where)
            write_itk_volume(folder / group / "Annotations" / f"{group}_{number}.nrrd", vessel, **where)
    return folder


def round_up_rotation(path: Path) -> None:
    """
    Leave the position to a quaternion a little longer than 1, as in files of CANDI, which nibabel refuses by default:
    axes towards left, superior, anterior.
    """
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(content[:348]))
    header["sform_code"], header["qform_code"] = 0, 1
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = 0, *[np.sqrt((1 + 6e-7) / 2)] * 2
    header["pixdim"][:4] = 1, 4.0, 4.0, 5.0
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))


def write_brain(folder: Path, each: int = 2) -> Path:
    """CANDI: ``SchizBull_2008/HC/HC_001/HC_001_procimg.nii.gz`` with ``_seg``, four groups, their tables."""
    shape = (36, 36, 28)
    grid = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij"), axis=-1)
    codes = np.array([*BRAIN_CODES, *BRAIN_OTHER])
    places = 0.5 + 0.3 * np.random.default_rng(0).uniform(-1, 1, (len(codes), 3))
    groups = {"HC": ("HC", 1), "SS": ("SS", 84), "BPDwithPsy": ("BPDwPsy", 65), "BPDwithoutPsy": ("BPDwoPsy", 30)}
    for group, (prefix, first) in groups.items():
        names = [f"{prefix}_{number:03d}" for number in range(first, first + each)]
        for number, name in enumerate(names):
            rng = np.random.default_rng([first, number])
            moved = places + rng.normal(0, 0.01, places.shape)
            nearest = ((grid[..., None, :] - moved) ** 2).sum(axis=-1).argmin(axis=-1)
            brain = _distance(shape, np.full(3, 0.5), np.array([0.42, 0.42, 0.45])) < 1
            label = np.where(brain, codes[nearest], 0).astype(np.uint8)
            image = np.where(brain, 40.0 + 5 * nearest, 5.0) * rng.uniform(0.5, 2) + rng.normal(0, 3, shape)
            for kind, volume in {"procimg": np.abs(image).astype(np.int16), "seg": label}.items():
                path = folder / "SchizBull_2008" / group / name / f"{name}_{kind}.nii.gz"
                write_nifti(path, volume)
                round_up_rotation(path)
        with (folder / "SchizBull_2008" / group / f"{group}_Basic_Demographics.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [("Subject", "Gender", "Age", "Handedness"), *((n, "male", 9, "RH") for n in names)]
            )
    return folder


def chest(rng: np.random.Generator, opacities: int = 0, shape: tuple[int, int, int] = (40, 32, 36)) -> np.ndarray:
    """
    Hounsfield units of a chest on a table, axes towards left, posterior, superior: two lungs of about 1.6 litres each
    at 8 x 8 x 9 mm, windpipe, air around, dense spots in the lungs.
    """
    shift = rng.uniform(-0.02, 0.02, 3)
    body = _distance(shape, np.array([0.5, 0.48, 0.5]) + shift, np.array([0.44, 0.4, 3.0])) < 1
    image = np.where(body, 40.0, -1000.0)
    lungs = np.zeros(shape, bool)
    for side in (0.3, 0.7):
        lungs |= _distance(shape, np.array([side, 0.48, 0.45]) + shift, np.array([0.16, 0.28, 0.34])) < 1
    image[lungs] = -850
    image[_distance(shape[:2], np.array([0.5, 0.5]) + shift[:2], np.array([0.03, 0.035])) < 1, shape[2] // 2 :] = -990
    inside = np.argwhere(lungs) / shape
    for spot in inside[rng.choice(len(inside), opacities)]:
        image[lungs & (_distance(shape, spot, np.full(3, 0.08)) < 1)] = -450
    image[4:-4, -3:-1] = -100  # table
    return image + rng.normal(0, 15, shape)


def write_covid(folder: Path, patients: int = 12) -> Path:
    """STOIC 2021: ``data/mha/PATIENT.mha`` and ``metadata/reference.csv``."""
    rows = []
    for patient in range(patients):
        rng = np.random.default_rng(patient)
        identity, positive = 7 * patient + 3, patient % 2
        volume = chest(rng, opacities=6 * positive).astype(np.int16)
        write_itk_volume(folder / "data" / "mha" / f"{identity}.mha", volume, (8.0, 8.0, 9.0), (-160.0, -120.0, -500.0))
        rows.append((identity, positive, int(positive and patient % 4 == 1)))
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    with (folder / "metadata" / "reference.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("PatientID", "probCOVID", "probSevere"), *rows])
    return folder
