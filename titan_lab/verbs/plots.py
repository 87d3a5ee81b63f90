"""Figures that hang on the book they draw: ``book.plot.states()``, ``book.plot.flow()`` and so on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from inspect import getdoc
from typing import TYPE_CHECKING, Any, Literal

from titan_lab.clock import Instant, instant, micros
from titan_lab.grid import step_for
from titan_lab.mining.dwell import spread
from titan_lab.notebook import figures, html
from titan_lab.verbs.clocks import TwoClocks
from titan_lab.verbs.mining import Mined
from titan_lab.verbs.why import Explained

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Drawn(TwoClocks, Explained, Mined):
    """A Timeline that draws its answers."""

    @property
    def plot(self) -> Plots:
        """Give the figures that can be drawn of this history; ``repr`` lists them.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> [trace.name for trace in book.plot.states("1d", only=["PAID", "SHIPPED"]).data]
        ['PAID', 'SHIPPED']
        """
        return Plots(self)


class Plots:
    """What can be drawn of a book. Each method asks the verb of the same name, and gives a plotly Figure."""

    def __init__(self, book: Drawn) -> None:
        self._book = book

    def states(
        self,
        step: str | timedelta | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
        by: str | None = "status",
        measure: str | None = None,
        only: Sequence[str] | None = None,
    ) -> go.Figure:
        """Draw how many are in each state over time, or the sum of a column over them; as ``every`` asks.

        step: without one, the shortest of a second to a month that makes no more than 400 instants. only: the
        states to draw, bottom first.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.plot.states(measure="total").layout.title.text
        'Order: total by status'
        """
        grid = self._book.every(step or self._step(since, until), since, until, by, measure)
        title = f"{self._name}: {measure or 'how many'}{f' by {by}' if by else ''}"
        return figures.states_over_time(
            grid, measure=measure or "count", only=only, title=title, unit="how many"
        )

    def flow(self, kind: Literal["graph", "sankey"] = "graph", limit: int | None = None) -> go.Figure:
        """Draw what directly follows what as a graph, or with "sankey" the ways that lives take together.

        limit: how many connections the graph has, 24 without one; how many steps the diagram has, 6.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.plot.flow(limit=10).layout.title.text
        'What follows what'
        """
        if kind == "sankey":
            found = self._book.variants()
            return figures.sankey(found) if limit is None else figures.sankey(found, steps=limit)
        edges = self._book.flow()
        return figures.flow(edges) if limit is None else figures.flow(edges, edges=limit)

    def dwell(self, column: str = "status", until: Instant | None = None) -> go.Figure:
        """Draw how long stays in each state of a column last, those that are not over included.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.plot.dwell().layout.title.text
        'How long they stay'
        """
        return figures.dwell(
            self._book.dwell(column, until), spread(self._book, column, until), column=column
        )

    def funnel(
        self,
        steps: Any,
        within: str | timedelta | None = None,
        by: str | None = None,
        *,
        order: Literal["given", "any"] = "given",
        strict: bool = False,
        reentry: bool = False,
    ) -> go.Figure:
        """Draw how many come to each step; the arguments are those of ``Book.funnel``.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> list(book.plot.funnel([tl.OrderCreated, tl.OrderShipped]).data[0].x)
        [500, 409]
        """
        return self._book.funnel(steps, within, by, order=order, strict=strict, reentry=reentry).plot()

    def variants(self, top: int = 12) -> go.Figure:
        """Draw the ways that most lives take, a row of steps for each; all others are one row.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.plot.variants(top=3).layout.yaxis.ticktext
        ('43.6%  218', '7.2%  36', '6.2%  31', '43.0%  215')
        """
        return figures.variants(self._book.variants(), top=top)

    def explain(
        self,
        measure: str,
        t0: Instant,
        t1: Instant,
        by: str = "event_type",
        zone: str | None = None,
        top: int | None = None,
    ) -> go.Figure:
        """Draw why the sum of a column moved, from the sum at t0 to the sum at t1; as ``explain`` asks.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> figure = book.plot.explain("total", "2025-01-14", "2025-01-15")
        >>> figure.data[1].text
        ('+1,934.47', '−468.85', '−104.02')
        """
        found = self._book.explain(measure, t0, t1, by, zone)
        zone = zone or self._book.zone
        start = instant(t0, zone)
        before = self._book.at(start, columns=[measure])[measure].sum()
        ends = [f"{moment:%d %b %Y}\n{moment:%H:%M}Z" for moment in (start, instant(t1, zone))]
        return figures.explained(
            found,
            before,
            top=top,
            title=f"Why the sum of {measure} moved",
            ends=(ends[0], ends[1]),
            unit=f"sum of {measure}",
        )

    def retention(self, by: str = "1mo", of: str = "user_id", zone: str | None = None) -> go.Figure:
        """Draw who comes back, as ``retention`` counts them.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.plot.retention("1w").layout.yaxis.ticktext[0]
        '2024-12-30  55'
        """
        return figures.retention(self._book.retention(by, of, zone))

    def conform(self) -> go.Figure:
        """Draw the rules by how often they are broken; as ``conform`` finds.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.plot.conform().data[0].text[0]
        '3'
        """
        return self._book.conform().plot()

    def backdated(self) -> go.Figure:
        """Draw the events that are effective at another instant than they were recorded at.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> len(book.plot.backdated().data[1].x)
        45
        """
        return figures.backdated(self._book.backdated())

    def __repr__(self) -> str:
        return f"<figures of {self._name}: {', '.join(f'.{name}()' for name in self._kinds)}>"

    def _repr_html_(self) -> str:
        told = [(f".{name}()", (getdoc(getattr(self, name)) or "").split(".")[0]) for name in self._kinds]
        return html.table(told, ["figure", "what it does"], caption=f"Figures of {self._name}")

    @property
    def _kinds(self) -> list[str]:
        return [name for name, member in vars(type(self)).items() if callable(member) and name[0] != "_"]

    @property
    def _name(self) -> str:
        return self._book.aggregate.__name__

    def _step(self, since: Instant | None, until: Instant | None) -> str:
        ends = zip((since, until), self._book.span or (0, 0), strict=True)
        return step_for(*(known if said is None else micros(said, self._book.zone) for said, known in ends))
