"""The pictures of the notebooks; the only place that imports matplotlib.

base      a picture as inline SVG that follows JupyterLab's theme, and what all pictures share
memory    notebook 02: what is alive when, and how far predictions lie from the measured
nf4       notebook 03: where the levels stand, how they are used, and what they cost
evaluate  notebook 08: gates and their margins, what is forgotten, who is to be trusted

A drawing is a function of numbers on an Axes that it is given; its title is the finding, computed.
`picture` shows one or several of them, with a text in their place for those who cannot see them.
"""

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE, Picture, picture

__all__ = ["BLUE", "GREEN", "GREY", "INK", "ORANGE", "Picture", "picture"]
