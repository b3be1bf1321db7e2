"""Training in several processes: who is there, what they agree on, and what they sum.

    torchrun --nproc-per-node 8 --no-python edgekd distill ...

Every process goes through the same run in step with the others, on a device of its own. A batch is that of the whole
run: each process takes a share of its rows, and gradients, batch statistics, figures and scores are put together, so
that the result is that of one process, but for rounding. The first process alone reads and writes the run folder; what
it finds there, and what it fails of, reaches the others through `from_first`.

`torchrun` starts the processes and ends them all when one dies; `torch.distributed` joins them, and `neighbours` those
on one machine's CPU, for what is small. Gradients are summed here and not by `DistributedDataParallel`: students have
tens of thousands of parameters, for which buckets sent during the backward pass gain nothing; and it has no place for a
loss with parameters of its own, for an adapter that stops counting half way, or for shares of different sizes.

In a process on its own all this does nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgekd.errors import EdgekdError, UsageError
from edgekd.neighbours import Neighbours, meet

Result = TypeVar("Result")

PATIENCE = timedelta(days=1)  # the first may decode for hours while others wait; a dead process is torchrun's to find
SIZES = ("LOCAL_WORLD_SIZE", "WORLD_SIZE")  # how many processes torchrun says it started: on this machine, in all
BUCKET_BYTES = 64 << 20  # of gradients sent at once
NEIGHBOURS: list[Neighbours] = []
"""The other processes where all are on one machine's CPU: small sums go to them by sockets. At most one."""

FORESEEN = (EdgekdError, OSError)
"""What one process tells the others of. With anything else it ends, and torchrun ends them."""


class FailedElsewhere(EdgekdError):
    """Another process has failed, and has said why; `exit_code` is its own."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run has failed")
        self.exit_code = exit_code


def is_lost_connection(failure: RuntimeError) -> bool:
    """Whether `failure` is that of a collective whose other end is gone."""
    return isinstance(failure, dist.DistError) or (count() > 1 and "gloo" in str(failure).lower())


# Who is there


def join(device: str) -> torch.device:
    """This process's device: `cpu`, `cuda`, or with `auto` the better of them. Under `torchrun` it joins the others.

    Raises `UsageError` for a device that is not there, and for processes that cannot have one each.
    """
    here, everywhere = (int(os.environ[name]) for name in SIZES) if dist.is_torchelastic_launched() else (1, 1)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: this machine has no CUDA device that torch can use. 'edgekd doctor' says more."
        )
    if everywhere == 1:  # whatever a batch system has put into the environment
        return torch.device("cuda", 0) if device == "cuda" else torch.device("cpu")
    if device == "cuda" and here > torch.cuda.device_count():
        raise UsageError(
            f"torchrun started {here} processes, and this machine has {torch.cuda.device_count()} CUDA devices: one "
            "process a device (--nproc-per-node), or --device cpu."
        )
    if everywhere % here:
        raise UsageError(f"torchrun started {here} processes here and {everywhere} in all: as many on every machine.")
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device("cpu")
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(_leave)
        if own.type == "cpu" and here == everywhere:
            NEIGHBOURS.extend(filter(None, [meet(rank(), count(), _told)]))
    return own


def _leave() -> None:
    """Take this process out of the group, so that no other one waits for what it will not send."""
    while NEIGHBOURS:
        NEIGHBOURS.pop().close()
    if dist.is_initialized():
        dist.destroy_process_group()


def _told(own: Result) -> list[Result]:
    """The `own` of every process."""
    values = [own] * count()
    dist.all_gather_object(values, own, group=_control())
    return values


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def share_of(total: int) -> slice:
    """This process's share of `total` things in a row."""
    return part_of(total, rank(), count())


def part_of(total: int, number: int, parts: int) -> slice:
    """Part `number` of `parts` of `total` things in a row; sizes differ by one at most."""
    return slice(total * number // parts, total * (number + 1) // parts)


_BATCH: ContextVar[int] = ContextVar("rows of the batch", default=0)


@contextmanager
def batch(rows: int) -> Iterator[None]:
    """Within it, a batch of `rows` in all processes is computed, `share_of(rows)` here."""
    token = _BATCH.set(rows)
    try:
        yield
    finally:
        _BATCH.reset(token)


def batch_rows() -> int:
    """The rows of the batch that is being computed, in all processes; 0 where none is."""
    return _BATCH.get()


# What they agree on


def from_first(make: Callable[[], Result]) -> Result:
    """What `make()` returns on the first process, which alone calls it; a copy on the others.

    What it raises there it raises there alone; the others raise `FailedElsewhere`.
    """
    if count() == 1:
        return make()
    message: list[Any] = [None, 0]
    if is_first():
        try:
            message[0] = make()
        except FORESEEN as failure:
            dist.broadcast_object_list([None, _exit_code(failure)], group=_control())
            raise
    dist.broadcast_object_list(message, group=_control())
    if message[1]:
        raise FailedElsewhere(message[1])
    return cast(Result, message[0])


def first_on_node(make: Callable[[], Result], after: Callable[[], Result]) -> Result:
    """`make()` on the first process of each machine and, when all of them are done, `after()` on the others.

    Where one fails, it raises that, and all others `FailedElsewhere`.
    """
    if count() == 1:
        return make()
    made: list[Result] = []
    with together():
        if node().place == 0:
            made.append(make())
    return made[0] if made else after()


@contextmanager
def together() -> Iterator[None]:
    """The processes leave the context at once, when all have come through; where one fails, all fail."""
    try:
        yield
    except FORESEEN as failure:
        _exit_codes(_exit_code(failure))
        raise
    code = max(_exit_codes(0))
    if code > 0:
        raise FailedElsewhere(code)


@dataclass(frozen=True)
class Node:
    """The processes on this machine: how many, which of them this is, and their group."""

    processes: int
    place: int
    group: Any

    def from_first(self, value: Result | None) -> Result:
        """The `value` that the first process of this machine has."""
        if self.processes == 1:
            return cast(Result, value)
        message = [value]
        dist.broadcast_object_list(message, src=rank() - self.place, group=self.group)
        return cast(Result, message[0])

    def gathered(self, value: Result) -> list[Result]:
        """The `value` of every process of this machine."""
        values = [value] * self.processes
        if self.processes > 1:
            dist.all_gather_object(values, value, group=self.group)
        return values


def node() -> Node:
    """This machine's processes; all processes must ask for it together the first time."""
    return Node(1, 0, None) if count() == 1 else _node()


@cache
def _node() -> Node:
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    groups = [dist.new_group(range(start, start + here), PATIENCE, "gloo") for start in range(0, count(), here)]
    return Node(here, int(os.environ["LOCAL_RANK"]), groups[rank() // here])


@cache
def _control() -> Any:
    """The group that objects go through: never that of the devices, whose memory is for other things."""
    return dist.new_group(timeout=PATIENCE, backend="gloo")


def _exit_codes(own: int) -> list[int]:
    return _told(own) if count() > 1 else [own]


def _exit_code(failure: BaseException) -> int:
    if isinstance(failure, OSError):
        return 3
    return failure.exit_code if isinstance(failure, EdgekdError) else 1


# What they sum


def summed(values: Tensor) -> Tensor:
    """The sum over the processes; `values` is changed."""
    if count() == 1:
        return values
    if _by_socket(values):
        return values.copy_(NEIGHBOURS[0].stacked(values).sum(0))
    dist.all_reduce(values)
    return values


def stacked(own: Tensor) -> Tensor:
    """What every process has in place of `own (...)`, as `(processes, ...)`."""
    if count() == 1:
        return own[None]
    if _by_socket(own):
        return NEIGHBOURS[0].stacked(own)
    table = own.new_zeros(count(), *own.shape)
    table[rank()] = own
    dist.all_reduce(table)
    return table


def _by_socket(values: Tensor) -> bool:
    return not torch.compiler.is_compiling() and bool(NEIGHBOURS) and NEIGHBOURS[0].takes(values)


def largest(values: Tensor) -> Tensor:
    """The largest of each value over the processes; `values` is changed."""
    if count() == 1:
        return values
    if _by_socket(values):
        return values.copy_(NEIGHBOURS[0].stacked(values).amax(0))
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def put_together(own: Sequence[Tensor], total: int) -> Tensor:
    """All `total` rows `(total, ...)`, of which the parts `own` are those of `share_of(total)`, in order; on the CPU.

    A process may have none, where there are more processes than rows.
    """
    if count() == 1:
        return torch.cat(list(own))
    kind = [(part.shape[1:], part.dtype) for part in own[:1]]
    shape, dtype = next(iter(gathered(kind)))
    rows = torch.zeros(total, *shape, dtype=dtype)
    if own:
        rows[share_of(total)] = torch.cat(list(own)).cpu()
    dist.all_reduce(rows, group=_control())
    return rows


def gathered(things: Sequence[Result]) -> list[Result]:
    """The `things` of all processes, those of the first process first."""
    shares: list[Sequence[Result]] = [[]] * count()
    dist.all_gather_object(shares, list(things), group=_control())
    return [thing for own in shares for thing in own]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients over the processes. A parameter without one here has none anywhere."""
    if count() == 1:
        return
    for bucket in _buckets([each.grad for each in parameters if each.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def spread(module: nn.Module) -> None:
    """Give every process the parameters and buffers that `module` has on the first."""
    if count() > 1:
        for tensor in module.state_dict().values():
            sent = tensor.detach().cpu().contiguous()  # weights may lie channels-last
            dist.broadcast(sent, src=0, group=_control())
            tensor.detach().copy_(sent)


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(each.nbytes for each in bucket) + gradient.nbytes > BUCKET_BYTES:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
