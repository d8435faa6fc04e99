"""The pictures of the notebooks; the only place that imports matplotlib.

base      a picture as inline SVG that follows JupyterLab's theme, and what all pictures share
lora      notebook 01: ranks, scales and losses
memory    notebook 02: what is alive when, and how far predictions lie from the measured
nf4       notebook 03: where the levels stand, how they are used, and what they cost
dora      notebook 05: lengths and directions, cost and quality
spectra   notebook 06: what an update holds, what it shares, and what a cut costs
readings  its recorded adapters, each picture with its words
variants  notebook 07: differences with every seed, rates, costs
evaluate  notebook 08: gates and their margins, what is forgotten, who is to be trusted
serve     notebook 09: what merging loses, throughput, cost of a tenant

A drawing is a function of numbers on an Axes that it is given; its title is the finding, computed.
`picture` shows one or several of them, with a text in their place for those who cannot see them.
"""

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE, Picture, picture

__all__ = ["BLUE", "GREEN", "GREY", "INK", "ORANGE", "Picture", "picture"]
