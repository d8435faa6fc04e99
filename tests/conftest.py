"""How the tests are shared out between workers: a file stays together, a run of a notebook is free.

A file keeps its models and servers for all its tests, so one worker takes the whole of it. The runs
of notebooks share nothing and take longest: each is a group of its own, and they go first, so that
no worker is left with a long one at the end. `make test` reads the groups (`--dist loadgroup`).
"""

import pytest


def pytest_collection_modifyitems(items):
    def alone(item):
        return item.path.name == "test_notebooks.py" and item.get_closest_marker("slow") is not None

    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.nodeid if alone(item) else item.path.name))
    items.sort(key=alone, reverse=True)
