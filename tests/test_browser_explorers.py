"""The explorer of notebook 06 in a real JupyterLab: its menus moved, and its picture read.

What the picture then says is compared with what `labkit.figures.spectra` says of the same adapter.
"""

import os
import re

import pytest
from browser import Lab, browser, find_chromium, server

from labkit import project, spectra
from labkit.adapter_files import read_adapter
from labkit.figures.spectra import values_picture

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELL = 'spectrum_explorer(THREE | {"yours": yours})'
MOVES = 10_000  # milliseconds that a page may take to follow, on a busy machine


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Notebook 06 in a browser, run to its end."""
    if find_chromium() is None:
        say = "no Chromium or Chrome on this machine: install one, or name it in LABKIT_CHROMIUM"
        pytest.fail(say) if os.environ.get("LABKIT_BROWSER") == "required" else pytest.skip(say)
    with server(tmp_path_factory.mktemp("lab")) as place, browser() as chromium:
        lab = Lab(chromium, place)
        lab.open("06_adapter_spectra.ipynb")
        lab.run_all(240)
        yield lab


def said_of_the_adapter_on_disk(layer, projection):
    """What a picture of that map says of the adapter that travels with the workbook."""
    u = read_adapter(project.data("adapters", "rank16-seed1")).at(layer, projection)
    values = spectra.singular_values(u.A, u.B, u.scale)
    name = f"yours, effective rank {spectra.effective_rank(values):.1f}"
    alt = values_picture({name: values.tolist()}, True, f"{projection} in layer {layer}").alt
    return alt.split("; value 4 over the first: ")


def test_notebook_06_runs_to_its_end(lab):
    assert lab.errors() == []
    assert lab.noise() == []
    assert lab.console == []


def test_its_explorer_shows_the_map_and_the_axis_that_the_menus_name(lab):
    cell = lab.cell(CELL)
    cell.scroll_into_view_if_needed()
    menu = {
        name: cell.get_by_label(name, exact=True).first for name in ("layer", "projection", "axis")
    }
    for name, choice in {"axis": "linear", "layer": "5", "projection": "down_proj"}.items():
        menu[name].select_option(choice)
    whose, told = said_of_the_adapter_on_disk(5, "down_proj")
    picture = cell.locator(f'svg[role=img][aria-label^="{whose};"]')
    picture.wait_for(timeout=MOVES)
    # The title names the lowest and the highest of what the text in its place says.
    label = picture.get_attribute("aria-label")
    shares = [float(share) for share in re.findall(r" (\d\.\d\d)(?:,|$)", label)]
    title = " ".join(picture.locator("text").all_text_contents())
    assert len(shares) == 4 and label.endswith(told)
    assert f"Value 4 is {min(shares):.2f} of the first" in title
    assert f"to {max(shares):.2f} (" in title
    assert picture.locator("text").filter(has_text=re.compile(r"^\s*0\.0\s*$")).count() == 1
