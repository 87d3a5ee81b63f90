"""What a notebook shows: HTML for reprs, plotly figures, and the self-contained report.

Empty on purpose: `titan_lab.notebook.html` is used on the ground floor (every object that can show itself),
and must not bring plotly or nbconvert with it.
"""
