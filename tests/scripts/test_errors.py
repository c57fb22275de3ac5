# SPDX-License-Identifier: Apache-2.0

"""A mistake of the user ends in one line, a mistake of the program in its traceback."""

from __future__ import annotations

import sys

import pytest
from monai.bundle import ConfigParser
from scripts.errors import InputError, check_numbers, check_orientation, show_one_line, user_message


def raised(action) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def instantiate(config: dict) -> Exception:
    """What MONAI raises for a component that cannot be made."""
    return raised(lambda: ConfigParser(config).get_parsed_content("part"))


def test_message_is_found_under_what_monai_wraps_around_it():
    error = instantiate({"part": {"_target_": "scripts.networks.UNetBackbone", "features": [8]}})
    assert not isinstance(error, InputError)
    assert (user_message(error) or "").startswith("features needs two or more levels")


def test_unknown_option_names_component_and_option():
    error = instantiate({"part": {"_target_": "scripts.networks.UNetBackbone", "depth": 5}})
    assert user_message(error) == (
        "scripts.networks.UNetBackbone has no option 'depth': correct the name in the config or on the command line"
    )


@pytest.mark.parametrize(
    "action",
    [
        lambda: {}["missing"],
        lambda: print(colour="red"),  # an unknown argument, but of no component
        lambda: ConfigParser({"part": "$1 / 0"}).get_parsed_content("part"),
    ],
)
def test_programming_errors_have_no_message(action):
    assert user_message(raised(action)) is None


@pytest.mark.parametrize(
    "text",
    [
        "from einops import x (No module named 'einops').",
        "Cannot locate class or function path: 'dynamic_network_architectures.unet.UNet'.",
    ],
)
def test_a_package_of_some_networks_alone_is_named(text):
    """As Python says it, and as MONAI does; a module of anything else is a programming error."""
    error = RuntimeError("Failed to evaluate ConfigExpression")
    error.__cause__ = ImportError(text)
    name = "einops" if "einops" in text else "dynamic_network_architectures"
    assert user_message(error) == f"this network needs the package {name}: python -m pip install {name}"
    assert user_message(ModuleNotFoundError("No module named 'scirpts.losses'")) is None


def test_hook_prints_the_message_alone(restored_process, capsys):
    show_one_line()
    sys.excepthook(InputError, InputError("scan.nii is damaged"), None)
    assert capsys.readouterr().err == "error: scan.nii is damaged\n"


def test_hook_leaves_programming_errors_their_traceback(restored_process, capsys):
    show_one_line()
    error = raised(lambda: {}["missing"])
    sys.excepthook(KeyError, error, error.__traceback__)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "KeyError: 'missing'" in shown


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (1, {}),
        (0.5, {}),
        (3, {"whole": True, "lowest": 3}),
        ([1, 2.5], {"count": 2}),
        ((4, 8, 16), {"count": 0, "whole": True}),
        ([-5, 5], {"count": 2, "lowest": float("-inf")}),
    ],
)
def test_numbers_that_fit(value, rule):
    check_numbers({"setting": value}, **rule)


@pytest.mark.parametrize(
    ("value", "rule", "wanted"),
    [
        (-1, {}, "a number of 0 or more, not -1"),
        ("1", {}, "a number of 0 or more, not '1'"),
        (None, {}, "a number"),
        (True, {}, "a number"),
        (float("nan"), {}, "a number"),
        (float("inf"), {}, "a number"),
        (1.5, {"whole": True}, "a whole number"),
        ([1], {}, "a number"),
        (5, {"count": 3}, "3 numbers"),
        ([1, 2], {"count": 3, "lowest": 1, "whole": True}, "3 whole numbers of 1 or more, not [1, 2]"),
        ([1, 0, 1], {"count": 3, "lowest": 1}, "3 numbers of 1 or more"),
        ("abc", {"count": 0}, "a list of numbers"),
        ([8, "16"], {"count": 0}, "a list of numbers"),
    ],
)
def test_numbers_that_do_not_fit(value, rule, wanted):
    with pytest.raises(InputError) as caught:
        check_numbers({"fine": [1] * (rule["count"] or 1) if "count" in rule else 9, "setting": value}, **rule)
    assert str(caught.value).startswith(f"setting must be {wanted}")
    assert str(caught.value).endswith("pass --setting accordingly")


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRP"])
def test_orientations(orientation):
    """Any order, either direction."""
    check_orientation(orientation)


@pytest.mark.parametrize("orientation", ["XYZ", "RA", "RLS", "RASS", "", None, 3])
def test_what_is_no_orientation(orientation):
    """Named with the remedy, before anything is read."""
    with pytest.raises(InputError, match="one letter each"):
        check_orientation(orientation)


def test_a_number_without_an_id_of_its_own_is_changed_in_the_configuration() -> None:
    with pytest.raises(InputError, match=r"points of the contrast must be .*: change it in the configuration"):
        check_numbers({"points of the contrast": 0}, lowest=1, whole=True)
