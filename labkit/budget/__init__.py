"""The calculators of notebook 02: pure functions of a model and a setup, shown under controls.

bars        bars whose parts add up, as SVG
groups      kinds of bytes as few groups, over the phases of a step
page        tables and code that scroll in a narrow column
speeds      what a change costs in speed, from measured rows
advice      what to change first
code        a setup as lines to copy
training    the memory of a training step, the GPUs that hold it, what to change
serving     many adapters on one base
counting    parameters of a model and of its adapters
pricing     hours and money

Each answer is a frozen dataclass that shows itself as text and as HTML. Nothing here needs torch,
numpy or matplotlib, so the calculators also run in a browser.
"""
