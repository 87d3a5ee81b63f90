"""What a race found, and what that proves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from titan_lab.notebook import html
from titan_lab.racing.readers import CURSORS

ROUNDS = pl.Schema(
    {
        "round": pl.Int64,
        "clocks": pl.String,
        "reader": pl.String,
        "kind": pl.String,
        "written": pl.Int64,
        "seen": pl.Int64,
        "missed": pl.Int64,
        "doubled": pl.Int64,
    }
)
APPENDS = {
    "acknowledged": "events whose commit was acknowledged",
    "rolled_back": "events taken back",
    "contests": "places that four writers appended to at once",
    "won": "appends that won one",
    "lost": "acknowledged events that are not stored",
    "unasked": "stored events that nobody was told of",
    "twice": "places that two writers were given",
    "several": "places that not exactly one writer won",
}
NEVER = ("lost", "unasked", "twice", "several")

Verdict = Literal["proven", "broken", "nothing"]


@dataclass(frozen=True, slots=True, repr=False)
class Race:
    """What a race found.

    store: where it was. writers, seconds: how many wrote, and for how long in each round. prepared: whether
    there were prepared transactions. appends: the counts of APPENDS over all rounds.

    rounds: one row per round and reader, in this order, with columns round Int64, clocks String ("database":
    all timestamps are the database's, "own": some writers have a clock of their own), reader String, kind
    String ("ours", "frontier" or "naive"), and the numbers of events written (acknowledged), seen, missed
    and doubled, Int64.
    """

    store: str
    writers: int
    seconds: float
    prepared: bool
    rounds: pl.DataFrame
    appends: dict[str, int]

    @property
    def readers(self) -> pl.DataFrame:
        """Sum up each reader, ours first.

        Columns reader and kind String, and written, seen, missed, doubled and rounds_missed Int64.
        """
        sums = [pl.col(name).sum() for name in ("written", "seen", "missed", "doubled")]
        bad = (pl.col("missed") > 0).sum().cast(pl.Int64).alias("rounds_missed")
        return self.rounds.group_by("reader", "kind", maintain_order=True).agg(*sums, bad)

    @property
    def verdict(self) -> Verdict:
        """Say "proven", "broken" (see `faults`), or "nothing" where this run proved nothing."""
        if self.faults:
            return "broken"
        return "proven" if self.witnesses and self.appends["contests"] else "nothing"

    @property
    def witnesses(self) -> list[str]:
        """List the naive readers that missed an event because of the race.

        One that would have missed some anyway bears witness of nothing: whoever takes a version for a
        position, and, where transactions overlap, whoever believed a clock that was ahead.
        """
        rows = self.rounds.filter(pl.col("missed") > 0, pl.col("reader").is_in(list(CURSORS)), kind="naive")
        if self.rounds.filter(kind="frontier").height:
            rows = rows.filter(clocks="database")
        return rows["reader"].unique(maintain_order=True).to_list()

    @property
    def faults(self) -> list[str]:
        """List what must not be, in words."""
        told = []
        for row in self.rounds.iter_rows(named=True):
            # The frontier rests on timestamps of the database; with other clocks it promises nothing alone.
            judged = row["kind"] == "ours" or (row["kind"] == "frontier" and row["clocks"] == "database")
            if judged and (row["missed"] or row["doubled"]):
                told.append(
                    f"{row['reader']} missed {row['missed']:,} and doubled {row['doubled']:,}"
                    f" of {row['written']:,} events in round {row['round']}"
                )
        return told + [f"{self.appends[name]:,} {APPENDS[name]}" for name in NEVER if self.appends[name]]

    @property
    def said(self) -> str:
        """Say what the verdict rests on."""
        if self.verdict == "broken":
            return "; ".join(self.faults)
        if self.verdict == "nothing":
            return (
                "this run proved nothing: no naive reader missed an event because of it, so one that misses"
                " some would have passed, too; race longer, or with more writers"
            )
        told = (
            f"ours missed and doubled none of {self.appends['acknowledged']:,} events, while beside it others"
            f" missed some: {', '.join(self.witnesses)}"
        )
        if self.readers.filter(kind="frontier")["missed"].sum():
            told += "; the frontier alone did, too, but not where all clocks were the database's"
        return told

    def facts(self) -> dict[str, Any]:
        """Name what was found beside the readers, for people."""
        told = {"store": self.store, "rounds": self.rounds["round"].n_unique(), "seconds": self.seconds}
        told |= {"writers": self.writers, "prepared transactions": self.prepared}
        return told | {text: self.appends[name] for name, text in APPENDS.items()}

    def plain(self) -> dict[str, Any]:
        """Name all of it, for machines."""
        told: dict[str, Any] = {"store": self.store, "writers": self.writers, "seconds": self.seconds}
        told |= {"prepared": self.prepared, "verdict": self.verdict, "said": self.said} | self.appends
        return told | {"readers": self.readers.to_dicts(), "rounds": self.rounds.to_dicts()}

    def __repr__(self) -> str:
        return f"<Race {self.store}: {self.verdict}>"

    def _repr_html_(self) -> str:
        said = f"{self.verdict}: {self.said}"
        return html.card(f"Race {self.store}", self.facts(), said, body=html.table(self.readers))


def compared(
    number: int,
    clocks: str,
    written: Iterable[tuple[str, int]],
    seen: dict[str, list[tuple[str, int]]],
    kinds: dict[str, str],
) -> pl.DataFrame:
    """Compare what each reader saw with what was written, as rows of ROUNDS."""
    wanted = set(written)
    rows = [
        {
            "round": number,
            "clocks": clocks,
            "reader": reader,
            "kind": kinds[reader],
            "written": len(wanted),
            "seen": len(set(places)),
            "missed": len(wanted - set(places)),
            "doubled": len(places) - len(set(places)),
        }
        for reader, places in seen.items()
    ]
    return pl.DataFrame(rows, ROUNDS)
