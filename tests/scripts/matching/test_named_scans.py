# SPDX-License-Identifier: Apache-2.0

"""Files that belong to scans go with the scan of their name, whatever order they are given in."""

from __future__ import annotations

import pytest
from scripts.matching.named_scans import in_order


@pytest.mark.parametrize(
    ("scans", "files", "told"),
    [
        (["sub-01_T1w", "sub-02_T1w"], ["sub-02_dseg", "sub-01_dseg"], [1, 0]),
        (["scan1", "scan10"], ["scan10label", "scan1label"], [1, 0]),
        (["01", "02"], ["label_2", "label_1"], [1, 0]),
        (["A/t1", "B/t1"], ["B/seg", "A/seg"], [1, 0]),
        (["x1", "x2"], ["y12", "y11"], [0, 1]),  # other numbers tell nothing
        (["left", "right"], ["x", "y"], [0, 1]),
    ],
)
def test_what_tells_names_apart_decides(scans, files, told, capsys):
    """Each name between what all have at its beginning and end; before, the first four got the other's labels."""
    files = [f"labels/{name}.nii.gz" for name in files]
    found = in_order([f"scans/{name}.nii.gz" for name in scans], files, "label maps")
    assert found == [files[number] for number in told]
    assert ("go with the scans of their names" in capsys.readouterr().out) == (told != [0, 1])
