# SPDX-License-Identifier: Apache-2.0
"""The parent bundle's components: found beside this child in the clone, put into its zip."""

from pathlib import Path

_SHARED = Path(__file__).resolve().parents[3] / "bundle" / "scripts"
if not _SHARED.is_dir():
    raise ImportError(f"{Path(__file__).parents[1]} lacks its code: take dist/{Path(__file__).parents[1].name}.zip")
__path__.append(str(_SHARED))
