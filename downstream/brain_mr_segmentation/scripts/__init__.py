# SPDX-License-Identifier: Apache-2.0
"""The parent bundle's components: found beside this child in the clone, put into its zip."""

import sys
from pathlib import Path

_BUNDLE = Path(__file__).resolve().parents[1]
_SHARED = _BUNDLE.parents[1] / "bundle" / "scripts"
if not _SHARED.is_dir():
    _LACKS = f"{_BUNDLE} lacks its code: take dist/{_BUNDLE.name}.zip"
    if getattr(sys.modules["__main__"].__spec__, "name", "").startswith("monai.bundle"):
        sys.excepthook = lambda *_: print(f"error: {_LACKS}", file=sys.stderr)
    raise ImportError(_LACKS)
__path__.append(str(_SHARED))
