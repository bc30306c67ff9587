"""Several processes denoise one clip, each some of its windows."""

import dataclasses

import torch
import torch.distributed
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Shares:
    """This process's part of the windows of every step; all of `ranks` processes make the same calls in the same order."""

    rank: int
    ranks: int

    @classmethod
    def of_this_run(cls) -> "Shares | None":
        """None where there is one process."""
        if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
            return None
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def own(self, count: int) -> range:
        """This process's windows of `count`: neighbours, which share residuals; of unequal shares the first are larger."""
        share, more = divmod(count, self.ranks)
        start = self.rank * share + min(self.rank, more)
        return range(start, start + share + (self.rank < more))

    def total(self, part: Tensor) -> Tensor:
        """The sum over processes, the same in all of them."""
        torch.distributed.all_reduce(part)
        return part

    def of_first(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, in all of them: noise that each has computed for itself may differ in its last bits."""
        tensor = tensor.contiguous()
        torch.distributed.broadcast(tensor, 0)
        return tensor
