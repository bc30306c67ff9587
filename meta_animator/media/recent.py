"""What was used last is kept, the rest is let go: one rule for open films, their facts and large arrays."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Recent(threading.local):
    """The things used last in this thread of this process, made when they are asked for; at most `limit` in total weight.

    weigh    the weight of a thing; 1 each by default
    let_go   called with a thing that falls out

    The newest thing always stays. A forked process starts empty and leaves alone what it has inherited.
    """

    def __init__(
        self, limit: float, *, weigh: Callable[[Any], float] = lambda thing: 1, let_go: Callable[[Any], None] = lambda thing: None
    ) -> None:
        self.limit, self.weigh, self.let_go = limit, weigh, let_go
        self.kept: OrderedDict[Hashable, tuple[Any, float]] = OrderedDict()
        self.weight = 0.0  # of all that is kept, each as it was when it came
        self.inherited: list[Any] = []
        self.process = os.getpid()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The thing of this key; made by `make` where it is not kept."""
        if self.process != os.getpid():
            self.inherited.append(self.kept)
            self.kept, self.weight, self.process = OrderedDict(), 0.0, os.getpid()
        if key not in self.kept:
            thing = make()
            self.kept[key] = thing, self.weigh(thing)
            self.weight += self.kept[key][1]
        self.kept.move_to_end(key)
        while len(self.kept) > 1 and self.weight > self.limit:
            thing, weight = self.kept.popitem(last=False)[1]
            self.weight -= weight
            self.let_go(thing)
        return self.kept[key][0]
