# SPDX-License-Identifier: Apache-2.0

"""What a message advises to do with a DICOM series makes it usable."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from geometries import write_series
from scripts.data import check_scan, read_scan, series_paths

SIZE = (14, 16, 12)
VOLUME = np.random.default_rng(0).integers(-900, 1200, SIZE).astype(np.int16)


class TestDicom:
    def refused(self, folder: Path, message: str) -> None:
        assert re.search(message, str(check_scan(str(folder))))

    def sort(self, folder: Path, attribute: str) -> list[Path]:
        """Put the files of each value into a folder of its own."""
        for path in [path for path in folder.iterdir() if path.is_file()]:
            own = folder / str(pydicom.dcmread(path)[attribute].value).replace("/", "_")
            own.mkdir(exist_ok=True)
            shutil.move(path, own / path.name)
        return [path for path in folder.iterdir() if path.is_dir()]

    def test_phases(self, tmp_path):
        uid = write_series(tmp_path / "a", VOLUME, TemporalPositionIdentifier=1)
        write_series(tmp_path / "a", VOLUME, uid=uid, name="b_{}.dcm", TemporalPositionIdentifier=2)
        self.refused(tmp_path / "a", "told apart by TemporalPositionIdentifier .*put each of them into a folder of its")
        folders = self.sort(tmp_path / "a", "TemporalPositionIdentifier")
        assert [check_scan(str(folder)) for folder in folders] == [None, None]

    def test_copies(self, tmp_path):
        write_series(tmp_path / "a", VOLUME)
        shutil.copy(tmp_path / "a" / "image_003.dcm", tmp_path / "a" / "image_003 (1).dcm")
        self.refused(tmp_path / "a", "move one copy of each to another folder")
        (tmp_path / "copies").mkdir()
        shutil.move(tmp_path / "a" / "image_003 (1).dcm", tmp_path / "copies")
        assert check_scan(str(tmp_path / "a")) is None

    @pytest.mark.parametrize("keep", [0, 200])
    def test_lost_and_damaged_slices(self, tmp_path, keep):
        write_series(tmp_path / "a", VOLUME)
        lost = tmp_path / "a" / "image_003.dcm"
        content = lost.read_bytes()
        lost.write_bytes(content[:keep]) if keep else lost.unlink()
        self.refused(tmp_path / "a", "lacks slices: .*cop[yi].* anew")
        lost.write_bytes(content)
        assert check_scan(str(tmp_path / "a")) is None

    def test_values_that_would_be_turned_around(self, tmp_path):
        """Before, air of such a CT was bright; with the other word, which the message advises, values stay."""
        write_series(tmp_path / "a", VOLUME, PhotometricInterpretation="MONOCHROME1")
        self.refused(tmp_path / "a", "is MONOCHROME1 .*set its PhotometricInterpretation to MONOCHROME2")
        for path in (tmp_path / "a").iterdir():
            item = pydicom.dcmread(path)
            item.PhotometricInterpretation = "MONOCHROME2"
            item.save_as(path)
        assert check_scan(str(tmp_path / "a")) is None
        assert np.array_equal(read_scan(str(tmp_path / "a"))[1], VOLUME)

    def test_colours_by_number(self, tmp_path):
        """Before, ITK ended the process."""
        write_series(tmp_path / "a", VOLUME, PhotometricInterpretation="PALETTE COLOR")
        self.refused(tmp_path / "a", "holds colours .3 values a voxel.")

    def test_slices_off_a_line(self, tmp_path):
        """Two parts of a spine, each straight: the message says where the second begins."""
        write_series(tmp_path / "a", VOLUME)
        for path in sorted((tmp_path / "a").iterdir())[7:]:
            item = pydicom.dcmread(path)
            item.ImagePositionPatient = [float(item.ImagePositionPatient[0]) + 50, *item.ImagePositionPatient[1:]]
            item.save_as(path)
        said = str(check_scan(str(tmp_path / "a")))
        (first,) = re.findall(r"put those from .* mm on \((.*) and further\) into a folder of their own", said)
        (tmp_path / "b").mkdir()
        for path in sorted((tmp_path / "a").iterdir()):
            if path.name >= first:
                shutil.move(path, tmp_path / "b")
        assert [len(list((tmp_path / name).iterdir())) for name in "ab"] == [7, 5]
        assert [check_scan(str(tmp_path / name)) for name in "ab"] == [None, None]

    def test_two_sizes(self, tmp_path):
        uid = write_series(tmp_path / "a", VOLUME)
        write_series(tmp_path / "a", VOLUME[:10], uid=uid, name="b_{}.dcm")
        self.refused(tmp_path / "a", "keep each kind in a folder of its own")
        folders = self.sort(tmp_path / "a", "Columns")
        assert [check_scan(str(folder)) for folder in folders] == [None, None]

    def test_two_series(self, tmp_path):
        for name in ("T1", "T2"):
            write_series(tmp_path / "a", VOLUME, name=name + "_{}.dcm", SeriesDescription=name)
        self.refused(tmp_path / "a", f"name one, as {tmp_path / 'a' / 'T1'}")
        assert [check_scan(path) for path in series_paths(tmp_path / "a")] == [None, None]
