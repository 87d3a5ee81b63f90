"""Look into the past of an event-sourced system: what was true, when, why, and what if.

     stores                  events             columns            timeline
     sqlite  parquet        ┌──────────┐ upcast ┌────────┐  fold  ┌──────────┐
     memory  any frame ────▶│ EVENTS   │───────▶│ typed  │───────▶│ every    │──▶ at · asof · every · history
        ▲                   │ frame    │ reject │ fields │        │ state    │
        │                   └──────────┘ counted└────────┘        └──────────┘──▶ book["id"].at · .log
        └──append

    >>> import titan_lab as tl
    >>> log = tl.open("sqlite:///data/samples/orders.db")
    >>> book = log.fold(tl.Order)
    >>> book.at("2025-01-15T12:00Z", columns=["status", "total"]).columns
    ['aggregate_id', 'version', 'status', 'total']

Names are loaded when they are first used: importing this package imports no driver and no frame library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> where it lives
_PUBLIC = {
    "Aggregate": "fold",
    "AuthorizePayment": "orders.commands",
    "CancelOrder": "orders.commands",
    "Check": "fold",
    "Command": "command",
    "CorrectOrder": "orders.commands",
    "CreateOrder": "orders.commands",
    "DeliverOrder": "orders.commands",
    "Desk": "command",
    "Event": "event",
    "EventLog": "log",
    "EventType": "payload",
    "IssueRefund": "orders.commands",
    "ItemsReturned": "orders.events",
    "Ledger": "jobs.ledger",
    "Metadata": "draft",
    "ModifyOrder": "orders.commands",
    "Order": "orders.order",
    "OrderCancelled": "orders.events",
    "OrderCorrected": "orders.events",
    "OrderCreated": "orders.events",
    "OrderDelivered": "orders.events",
    "OrderDesk": "orders.commands",
    "OrderModified": "orders.events",
    "OrderShipped": "orders.events",
    "PaymentAuthorized": "orders.events",
    "Record": "payload",
    "RefundIssued": "orders.events",
    "ReturnItems": "orders.commands",
    "ShipOrder": "orders.commands",
    "Snapshots": "snapshot",
    "TitanError": "errors",
    "collect": "reducers",
    "count": "reducers",
    "fill": "upcast",
    "first": "reducers",
    "from_frame": "connect",
    "instant": "clock",
    "largest": "reducers",
    "latest": "reducers",
    "machine": "reducers",
    "mask": "notebook.masked",
    "nothing_to_do": "notebook.nothing",
    "open": "connect:open_log",
    "race": "racing.run",
    "run_job": "jobs.run",
    "smallest": "reducers",
    "step": "reducers",
    "total_of": "reducers",
    "unmasked": "notebook.masked",
    "upcaster": "upcast",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"titan_lab has no {name!r}; it has {', '.join(__all__)}")
    module, _, inside = _PUBLIC[name].partition(":")
    value = getattr(import_module(f"titan_lab.{module}"), inside or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(shell: Any) -> None:
    """Answer to ``%load_ext titan_lab``: it adds %titan, %at, %order, %diff and %%titan_sql."""
    import_module("titan_lab.notebook.magics").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Answer to ``%unload_ext titan_lab``."""
    import_module("titan_lab.notebook.magics").unload(shell)


if TYPE_CHECKING:
    from titan_lab.clock import instant as instant
    from titan_lab.command import Command as Command
    from titan_lab.command import Desk as Desk
    from titan_lab.connect import from_frame as from_frame
    from titan_lab.connect import open_log as open  # noqa: F401
    from titan_lab.draft import Metadata as Metadata
    from titan_lab.errors import TitanError as TitanError
    from titan_lab.event import Event as Event
    from titan_lab.fold import Aggregate as Aggregate
    from titan_lab.fold import Check as Check
    from titan_lab.jobs.ledger import Ledger as Ledger
    from titan_lab.jobs.run import run_job as run_job
    from titan_lab.log import EventLog as EventLog
    from titan_lab.notebook.masked import mask as mask
    from titan_lab.notebook.masked import unmasked as unmasked
    from titan_lab.notebook.nothing import nothing_to_do as nothing_to_do
    from titan_lab.orders.commands import AuthorizePayment as AuthorizePayment
    from titan_lab.orders.commands import CancelOrder as CancelOrder
    from titan_lab.orders.commands import CorrectOrder as CorrectOrder
    from titan_lab.orders.commands import CreateOrder as CreateOrder
    from titan_lab.orders.commands import DeliverOrder as DeliverOrder
    from titan_lab.orders.commands import IssueRefund as IssueRefund
    from titan_lab.orders.commands import ModifyOrder as ModifyOrder
    from titan_lab.orders.commands import OrderDesk as OrderDesk
    from titan_lab.orders.commands import ReturnItems as ReturnItems
    from titan_lab.orders.commands import ShipOrder as ShipOrder
    from titan_lab.orders.events import ItemsReturned as ItemsReturned
    from titan_lab.orders.events import OrderCancelled as OrderCancelled
    from titan_lab.orders.events import OrderCorrected as OrderCorrected
    from titan_lab.orders.events import OrderCreated as OrderCreated
    from titan_lab.orders.events import OrderDelivered as OrderDelivered
    from titan_lab.orders.events import OrderModified as OrderModified
    from titan_lab.orders.events import OrderShipped as OrderShipped
    from titan_lab.orders.events import PaymentAuthorized as PaymentAuthorized
    from titan_lab.orders.events import RefundIssued as RefundIssued
    from titan_lab.orders.order import Order as Order
    from titan_lab.payload import EventType as EventType
    from titan_lab.payload import Record as Record
    from titan_lab.racing.run import race as race
    from titan_lab.reducers import collect as collect
    from titan_lab.reducers import count as count
    from titan_lab.reducers import first as first
    from titan_lab.reducers import largest as largest
    from titan_lab.reducers import latest as latest
    from titan_lab.reducers import machine as machine
    from titan_lab.reducers import smallest as smallest
    from titan_lab.reducers import step as step
    from titan_lab.reducers import total_of as total_of
    from titan_lab.snapshot import Snapshots as Snapshots
    from titan_lab.upcast import fill as fill
    from titan_lab.upcast import upcaster as upcaster
