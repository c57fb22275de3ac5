# SPDX-License-Identifier: Apache-2.0
"""Landmarks in the formats of 3D Slicer and in tables."""

from __future__ import annotations

import json

import numpy as np

PLACES = np.array([[4.0, 5.0, 6.0], [10.0, 12.5, 8.0], [14.0, 7.0, 11.0]])
NAMES = ["apex", "base", "valve, left"]
LPS = np.array([-1, -1, 1])


def slicer(space, places=PLACES, names=NAMES, **markup):
    signs = {"RAS": 1, "LPS": [-1, -1, 1]}.get(space, 1)
    points = [
        {"id": str(i), "label": name, "position": (place * signs).tolist(), "positionStatus": "defined", "locked": True}
        for i, (name, place) in enumerate(zip(names, places, strict=True))
    ]
    empty = {"id": "9", "label": "not placed", "position": [0, 0, 0], "positionStatus": "undefined"}
    described = {"type": "Fiducial", "coordinateSystem": space, "controlPoints": [*points, empty], **markup}
    return json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [described]})


def fcsv(system, signs):
    rows = [
        f'vtkMRMLMarkupsFiducialNode_{i},{x},{y},{z},0,0,0,1,1,1,0,"{name}",,'
        for i, (name, (x, y, z)) in enumerate(zip(NAMES, PLACES * signs, strict=True))
    ]
    head = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {system}"]
    return "\n".join([*head, "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID", *rows]) + "\n"


def table(header, signs=1, names=NAMES):
    rows = [f'"{name}",{x},{y},{z}' for name, (x, y, z) in zip(names, PLACES * signs, strict=True)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"
