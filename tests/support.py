# SPDX-License-Identifier: Apache-2.0

"""Writers and readers of test files, ways to spoil them, looks at figures, and the command a user types."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
import torch
from mlflow import MlflowClient
from monai.utils import path_to_sqlite_uri
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scripts.data import find_scans
from warm_start import run_warm


def scans_of(folder: Path, **options: Any) -> dict[str, str]:
    """The scans that are found in a folder, by their paths in it, and their subjects."""
    scans = find_scans(str(folder), min_subjects=1, **options)
    return {os.path.relpath(scan["image"], folder): scan["subject"] for scan in scans}


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, np.eye(4) if affine is None else affine), path)


def cut(path: Path, share: float = 0.5) -> None:
    """Leave the first part of a file alone."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def load(path: Path) -> Any:
    """Weights, or the state of a training."""
    return torch.load(path, weights_only=True)


def write_itk(path: Path, volume: np.ndarray, compression: bool = False) -> None:
    """Write a volume whose axes run right, anterior, superior; ITK counts towards left and posterior."""
    image = itk.image_from_array(np.ascontiguousarray(volume.T))
    image.SetDirection(itk.matrix_from_array(np.diag([-1.0, -1.0, 1.0])))
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(image, str(path), compression=compression)


def write_dicom(folder: Path, volume: np.ndarray, name: str = "slice_{}.dcm") -> None:
    """Write a series of axial slices, 1 mm apart, with a slope and intercept as CT has them."""
    folder.mkdir(parents=True, exist_ok=True)
    series, frame = generate_uid(), generate_uid()
    for index in range(volume.shape[2]):
        header = pydicom.dataset.FileMetaDataset()
        header.TransferSyntaxUID = ExplicitVRLittleEndian
        header.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        header.MediaStorageSOPInstanceUID = generate_uid()
        item = pydicom.Dataset()
        item.file_meta = header
        item.SOPClassUID, item.SOPInstanceUID = header.MediaStorageSOPClassUID, header.MediaStorageSOPInstanceUID
        item.SeriesInstanceUID, item.StudyInstanceUID, item.FrameOfReferenceUID = series, series, frame
        item.Modality, item.PatientID, item.InstanceNumber = "CT", "phantom", index + 1
        item.ImageOrientationPatient, item.PixelSpacing, item.SliceThickness = [-1, 0, 0, 0, -1, 0], [1, 1], 1
        item.ImagePositionPatient = [0, 0, index]
        item.Rows, item.Columns = volume.shape[1], volume.shape[0]
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.RescaleSlope, item.RescaleIntercept = 1, -1024
        item.PixelData = np.round(volume[:, :, index].T + 1024).astype("<i2").tobytes()
        pydicom.dcmwrite(folder / name.format(index), item, enforce_file_format=True)


PHANTOM_CODES = {"LV": 500, "RV": 600, "LA": 420, "RA": 550, "Myo": 205, "Ao": 820, "PA": 850}
SIZE = (10, 8, 6)  # towards the patient's right, anterior, superior


def drawn(figure):
    """Render a figure, return its pixels."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return np.asarray(Image.open(file).convert("RGB"))


def marker(axis, end):
    """A volume that is bright at one end of an axis."""
    volume = np.zeros(SIZE, np.float32)
    volume[(slice(None),) * axis + (slice(-2, None) if end else slice(0, 2),)] = 1
    return volume


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=2")


def run_bundle(
    bundle: Path, config: str, *, cwd: Path | None = None, processes: int = 1, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """The command typed in a child (or elsewhere), without this repository on the path; by one process or two."""
    names = ("train", "evaluate") if config == "evaluate" else (config,)
    names += ("multi_gpu_train",) if processes > 1 else ()
    folder = bundle / "configs" if cwd else Path("configs")
    settings = {"config_file": [str(folder / f"{name}.json") for name in names], **settings}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    typed = ("-m", "monai.bundle", "run", *options)
    if processes == 1:
        return run_warm(typed, cwd or bundle, environment)
    return subprocess.run(
        [sys.executable, *TORCHRUN, *typed],
        cwd=cwd or bundle,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def tracked_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs that MLflow knows of an output folder, first one first: status, metrics by name and step, artifacts."""
    client = MlflowClient(tracking_uri=path_to_sqlite_uri(folder / "mlruns.db"))
    experiment = client.get_experiment_by_name("monai_experiment")
    found = []
    for run in client.search_runs(experiment.experiment_id, order_by=["start_time ASC"]):
        key = run.info.run_id
        metrics = {name: {m.step: m.value for m in client.get_metric_history(key, name)} for name in run.data.metrics}
        paths = [file.path for place in (None, "pictures") for file in client.list_artifacts(key, place)]
        files = {path: Path(client.download_artifacts(key, path)) for path in paths if path != "pictures"}
        found.append({"status": run.info.status, "metrics": metrics, "artifacts": files})
    return found
