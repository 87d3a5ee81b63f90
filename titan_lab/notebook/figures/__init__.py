"""Figures, all of one family: one template, one colour per status everywhere, times in UTC and said so.

Each function takes frames or objects as the package returns them and gives a `plotly.graph_objects.Figure`,
which is for the caller to show, change or save; nothing here shows anything. ``book.plot`` and the ``plot()``
of a Story, a Funnel, a Conformance and a Comparison hand them what they need. Plotly is imported on the first
call.

What is drawn does not grow with the history: frames are added up or cut before they are drawn, and the title
says what was left out. Names come from payloads and stores, and are shown as the text that they are.
"""

from titan_lab.notebook.figures.change import comparison, explained
from titan_lab.notebook.figures.clocks import backdated
from titan_lab.notebook.figures.cohorts import retention
from titan_lab.notebook.figures.family import COLOURS, EVENT_COLOURS, colour_of
from titan_lab.notebook.figures.graph import flow, sankey
from titan_lab.notebook.figures.life import story
from titan_lab.notebook.figures.results import results_over_time
from titan_lab.notebook.figures.rules import conformance
from titan_lab.notebook.figures.stays import dwell
from titan_lab.notebook.figures.time import events_by_hour, states_over_time
from titan_lab.notebook.figures.ways import funnel, variants

__all__ = [
    "COLOURS",
    "EVENT_COLOURS",
    "backdated",
    "colour_of",
    "comparison",
    "conformance",
    "dwell",
    "events_by_hour",
    "explained",
    "flow",
    "funnel",
    "results_over_time",
    "retention",
    "sankey",
    "states_over_time",
    "story",
    "variants",
]
