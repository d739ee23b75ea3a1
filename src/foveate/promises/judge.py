"""One promise held against one model: is it offered, is it kept; if not, by how much, on what input, from where on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from foveate.errors import FoveateError, first_line
from foveate.promises.noise import noisy
from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Values, make_rows, read, together
from foveate.promises.report import BROKEN, KEPT, NOT_OFFERED, Finding
from foveate.promises.subject import Subject
from foveate.promises.watch import Watch, first_difference, watching

# How much further than rounding is doubted. In half precision much less: single precision then settles the doubt, and
# what it confirms is made small and followed there.
TIMES, TIMES_IN_HALF = 5.0, 0.5
FIRM = 50.0  # how much further is a fault where no finer arithmetic can settle the doubt
SURE = 500.0  # how much further is a fault in single precision, whatever a finer one says
SEEDS = (11, 12)
PATIENCE = 6.0  # seconds for making an input small
# how models, and autograd where a cache is written in place, say that something cannot be done
DECLINING = (
    "support",
    "cannot",
    "required",
    "requires a cache",
    "not implemented",
    "not serializable",
    "modified by an inplace operation",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far two computations are apart, and how far they may be; or what the model raised."""

    case: Case
    comparison: Comparison
    worst: float = 0.0
    allowed: float = 0.0
    excess: float = 0.0  # worst in shares of allowed
    error: Exception | None = None

    @property
    def broken(self) -> bool:
        return self.error is not None or self.excess > 1


class Judge:
    """Checks promises of a subject at ``length`` tokens; what rounding does to it is measured once."""

    def __init__(self, subject: Subject, *, length: int, seed: int = 0) -> None:
        self.subject, self.length, self.seed = subject, length, seed
        half = subject.dtype.itemsize < 4 and not subject.quantized
        self.times = TIMES_IN_HALF if half else TIMES
        self._floors: dict[str, dict[str, float]] = {}
        self._finer: Judge | None = None

    def judge(self, promise: Promise) -> Finding:
        """What is found about a promise."""
        start = time.perf_counter()
        finding = self._judge(promise)
        return replace(finding, seconds=time.perf_counter() - start)

    def _judge(self, promise: Promise) -> Finding:
        about = Finding(name=promise.name, group=promise.group, says=promise.says, state=KEPT)
        try:
            reason = promise.lacking(self.subject)
        except Exception as error:  # of which kind depends on the model
            if _out_of_memory(error):
                raise
            if _declines(error):
                return replace(about, state=NOT_OFFERED, note=first_line(error))
            return replace(about, state=BROKEN, worst=math.inf, input="two tokens", length=2, rows=1, note=_said(error))
        if reason:
            return replace(about, state=NOT_OFFERED, note=reason)
        length = max(min(promise.longest or self.length, self._limit()), promise.shortest)
        worst = Outcome(case=Case(rows=1, length=length), comparison=_nothing())
        for detail in promise.details(length):
            case = Case(rows=promise.rows[1], length=length, detail=detail, seed=self.seed)
            outcome = self.compare(promise, case)
            if outcome.error is not None and _declines(outcome.error):
                return replace(about, state=NOT_OFFERED, note=first_line(outcome.error))
            if outcome.error is not None or outcome.excess >= worst.excess:
                worst = outcome
            if worst.error is not None:
                break
        note = self._was_rounding(promise, worst) if worst.broken else ""
        if note or not worst.broken:
            return replace(
                about, worst=worst.worst, allowed=worst.allowed, length=length, rows=promise.rows[1], note=note
            )
        judge = self._in_finer_dtype() if self.times < TIMES and promise.finer and worst.error is None else None
        judge = judge or self
        least = judge._shrink(promise, worst if judge is self else judge.compare(promise, worst.case))
        raised = least.error
        return replace(
            about,
            state=BROKEN,
            worst=math.inf if raised is not None else max(worst.worst, least.worst),
            allowed=worst.allowed,
            layer=judge._locate(promise, least),
            input=least.comparison.input,
            length=least.case.length,
            rows=least.case.rows,
            note=_said(raised) if raised is not None else "",
        )

    def compare(self, promise: Promise, case: Case) -> Outcome:
        """Both computations of a case, held against one another."""
        comparison = promise.compare(self.subject, case)
        try:
            expected, actual = comparison.expected(), comparison.actual()
            floors = self._floor(promise, comparison, expected)
        except Exception as error:  # of which kind depends on the model
            if _out_of_memory(error):
                raise
            return Outcome(case=case, comparison=comparison, error=error)
        worst, allowed, excess = 0.0, 0.0, -1.0
        for name, value in expected.items():
            if promise.measure == "drift":  # what is expected there is how far off it may be
                off, may = actual[name].item(), value.item()
            else:
                floor = floors.get(name, max(floors.values(), default=0.0))
                may = self._allowed(promise, value, actual[name], floor)
                off = _distance(value, actual[name])
            over = off / may if may else (math.inf if off else 0.0)
            if over > excess:
                worst, allowed, excess = off, may, over
        return Outcome(case=case, comparison=comparison, worst=worst, allowed=allowed, excess=excess)

    def _allowed(self, promise: Promise, value: torch.Tensor, actual: torch.Tensor, floor: float) -> float:
        if promise.exact and self.subject.device.type == "cpu":
            return 0.0
        # generate hands out single precision whatever the model computes in
        eps = max(torch.finfo(dtype).eps for dtype in (value.dtype, actual.dtype) if dtype.is_floating_point)
        if promise.measure == "reach":
            return eps
        scale = value.abs().max().item() if value.numel() else 0.0
        return self.times * max(floor, eps * scale)

    def _floor(self, promise: Promise, comparison: Comparison, expected: Values) -> dict[str, float]:
        """How far the same computation in another order is off: of logits the largest, of gradients of each."""
        measure = promise.measure
        if measure in ("drift", "reach"):
            return {}
        if measure not in self._floors:
            compute = comparison.expected
            if measure == "logits":
                rows = make_rows(self.subject, [self.length] * 2, self.seed)
                compute = lambda: read(self.subject, [together(rows)])  # noqa: E731
                expected = compute()
            floors: dict[str, float] = {}
            for seed in SEEDS:
                for name, value in noisy(compute, seed).items():
                    floors[name] = max(floors.get(name, 0.0), _distance(expected[name], value))
            if measure == "gradients":  # of parameters whose gradients are nothing but rounding
                most = max((value.abs().max().item() for value in expected.values() if value.numel()), default=0.0)
                eps = torch.finfo(self.subject.dtype).eps
                floors = {name: max(floor, eps * most) for name, floor in floors.items()}
            else:
                floors = {"": max(floors.values(), default=0.0)}
            self._floors[measure] = floors
        return self._floors[measure]

    def _was_rounding(self, promise: Promise, outcome: Outcome) -> str:
        """A note if the same case in a finer dtype is within that dtype's rounding."""
        sure = self.subject.dtype.itemsize >= 4 and outcome.excess > SURE / self.times
        if not promise.finer or outcome.error is not None or sure:
            return ""
        finer = self._in_finer_dtype()
        again = finer.compare(promise, outcome.case) if finer is not None else None
        if finer is None or again is None or again.error is not None:
            return (
                "within what rounding may do, as far as this dtype can tell"
                if outcome.excess < FIRM / self.times
                else ""
            )
        if again.broken:
            return ""
        dtype = str(finer.subject.dtype).removeprefix("torch.")
        return f"rounding: gone in {dtype}"

    def _in_finer_dtype(self) -> Judge | None:
        if self._finer is None and (subject := self.subject.finer()) is not None:
            self._finer = Judge(subject, length=self.length, seed=self.seed)
        return self._finer

    def _shrink(self, promise: Promise, worst: Outcome) -> Outcome:
        """The fewest rows, and then the shortest text, on which the promise is still broken."""
        until = time.perf_counter() + PATIENCE
        best = worst

        def try_case(rows: int, length: int) -> bool:
            nonlocal best
            for detail in promise.details(length):
                outcome = self.compare(promise, Case(rows=rows, length=length, detail=detail, seed=self.seed))
                if outcome.error is not None and (worst.error is None or type(outcome.error) is not type(worst.error)):
                    continue  # another fault than the one that is made small
                if outcome.broken:
                    best = outcome
                    return True
            return False

        for rows in range(promise.rows[0], best.case.rows):
            if try_case(rows, best.case.length):
                break
        rows = best.case.rows
        for length in _lengths(promise.shortest, best.case.length, lambda: best.case.length):
            if time.perf_counter() > until:
                break
            try_case(rows, length)
        return best

    def _locate(self, promise: Promise, outcome: Outcome) -> str | None:
        comparison = outcome.comparison.followed or outcome.comparison
        if outcome.error is not None:
            with watching() as watch:
                try:
                    outcome.comparison.actual()
                except Exception:  # the one that is looked into
                    return watch.inside[-1] if watch.inside else None
            return None
        if not comparison.watchable:
            return None
        try:
            backwards = promise.measure == "gradients" and outcome.comparison.followed is None
            return self._first_difference(comparison, gradients=backwards, exact=promise.exact)
        except Exception:  # a model that hooks disturb
            return None

    def _first_difference(self, comparison: Comparison, *, gradients: bool, exact: bool) -> str | None:
        def watch(compute: Callable[[], Values]) -> Watch:
            with watching(gradients=gradients) as seen:
                compute()
            return seen

        noise = watch(lambda: noisy(comparison.expected, SEEDS[0]))
        return first_difference(watch(comparison.expected), watch(comparison.actual), noise, 0.0 if exact else TIMES)

    def _limit(self) -> int:
        """The most tokens the model says it can read."""
        config = self.subject.config
        names = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_target_positions")
        found = [getattr(config, name, None) for name in names]
        return min((value for value in found if isinstance(value, int) and value > 0), default=1 << 30)


def _lengths(shortest: int, longest: int, best: Callable[[], int]) -> Iterator[int]:
    """Lengths to try: doubling until one shows the fault, then one by one from the last that did not."""
    last = length = shortest
    while length < longest:
        yield length
        if best() <= length:
            break
        last, length = length + 1, max(2 * length, length + 1)
    for length in range(last, best()):
        yield length
        if best() <= length:
            return


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape:
        return math.inf
    if not one.numel():
        return 0.0
    difference = (one.double() - other.double()).abs()
    difference[one == other] = 0  # infinities of one sign
    return difference.nan_to_num(math.inf, math.inf).max().item()


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _declines(error: Exception) -> bool:
    """Whether a model has said in words that it does not do this, which is no fault."""
    if isinstance(error, NotImplementedError | FoveateError):
        return True
    said = str(error).lower()
    return isinstance(error, ValueError | RuntimeError) and any(words in said for words in DECLINING)


def _nothing() -> Comparison:
    return Comparison(expected=dict, actual=dict, input="")
