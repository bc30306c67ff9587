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
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()
        self.inherited: list[Any] = []
        self.process = os.getpid()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The thing of this key; made by `make` where it is not kept."""
        if self.process != os.getpid():
            self.inherited.append(self.kept)
            self.kept, self.process = OrderedDict(), os.getpid()
        if key not in self.kept:
            self.kept[key] = make()
        self.kept.move_to_end(key)
        while len(self.kept) > 1 and sum(map(self.weigh, self.kept.values())) > self.limit:
            self.let_go(self.kept.popitem(last=False)[1])
        return self.kept[key]
