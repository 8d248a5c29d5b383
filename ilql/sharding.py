"""A module's transformer blocks cut among the workers that train it together, by PyTorch's FSDP2.

Blocks are nine tenths of a large trunk: of each, every worker holds some rows of every parameter, of its gradient and
of AdamW's moments, and all of it only while it runs. So is each trunk that the module has or reads: online, target,
policy, a frozen behaviour policy, a critic. Embeddings, final norms and heads stay whole on every worker, for their
weights are read outside of a forward pass; their gradients are summed as without sharding.

Three things that are not obvious:
1. Gradients are summed, not averaged: losses are shares of the whole batch's mean already. (Over gloo FSDP2's own
   average would be a sum, github.com/pytorch/pytorch/issues/162338.)
2. Every worker must make as many passes as the others, each through the same blocks, or all wait for ever. So whoever
   has fewer dialogues makes passes of weight 0 (`idle_passes`).
3. Each micro-batch's gradients are summed at once, so that no worker ever holds whole ones.

What is sharded is a `DTensor`, which remembers its whole shape; arithmetic on it is arithmetic on `own_part` of it.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ilql.adapters import is_adapted
from ilql.language_model import held_beside


def shard(module: nn.Module, device: torch.device) -> None:
    """Cut the blocks of all trunks of a module, and of those it reads, among the workers; in place, on the device.

    All workers call it at once, with equal modules. Parameters of blocks are new objects afterwards. A module without
    a trunk, such as CHAI's heads, stays as it is.

    Args:
        module: As built, on any device.
        device: Where it is to learn.

    Raises:
        ValueError: It has adapters: its trunk is one for several networks, which would each cut it again.
    """
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415  slow imports, needed only here
    from torch.distributed.fsdp import FSDPModule, fully_shard  # noqa: PLC0415

    if is_adapted(module):
        raise ValueError("sharding needs networks without adapters, which share one frozen trunk already")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # FSDP2 takes the current one
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    # A trunk's output may be a view, which is trouble if it is changed in place; here nothing is.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for part in (module, *held_beside(module)):
        for trunk in _trunks(part):
            blocks = _blocks(trunk)
            for block in blocks:
                fully_shard(block, mesh=mesh, reshard_after_forward=True)
            rest = {p for p in trunk.parameters() if not is_sharded(p)}
            fully_shard(trunk, mesh=mesh, ignored_params=rest)  # holds nothing: it lets blocks be gathered ahead
            trunk.register_forward_hook(_forget)
            for block in blocks:
                assert isinstance(block, FSDPModule)
                block.set_gradient_divide_factor(1.0)
                block.set_force_sum_reduction_for_comms(True)
        part.to(device)


def block_parameters(module: nn.Module) -> list[nn.Parameter]:
    """What `shard` cuts: the parameters of all blocks of a module, and of those it reads."""
    trunks = [trunk for part in (module, *held_beside(module)) for trunk in _trunks(part)]
    return [parameter for trunk in trunks for block in _blocks(trunk) for parameter in block.parameters()]


def idle_passes(dialogues: int, *, workers: int, micro_batch: int, own: int) -> int:
    """How many passes of weight 0 a worker makes, so that all make as many as the one with the most dialogues.

    Args:
        dialogues: In the batch; workers get one in turn.
        workers: How many there are.
        micro_batch: Dialogues in a pass; 0 takes a worker's share whole.
        own: Passes with dialogues that this worker makes.
    """
    most = math.ceil(dialogues / workers)
    return math.ceil(most / (micro_batch or most)) - own


def is_sharded(tensor: Tensor) -> bool:
    """Whether a worker holds but some rows of it."""
    tensors = sys.modules.get("torch.distributed.tensor")  # a slow import, made by whoever shards
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """The rows of it that this worker holds, not copied: all of them unless it is sharded. No gradient flows back."""
    sharded: Any = tensor
    rows: Tensor = sharded.to_local() if is_sharded(tensor) else tensor
    return rows.detach()


def own_rows(tensor: Tensor) -> tuple[int, int]:
    """The first of the rows that this worker holds of a sharded tensor, and how many they are.

    Workers hold them in order: each as many as the first, but for the last ones, which have what is left.
    """
    assert is_sharded(tensor)
    sharded: Any = tensor
    each = math.ceil(tensor.shape[0] / sharded.device_mesh.size())
    return min(sharded.device_mesh.get_local_rank() * each, tensor.shape[0]), len(own_part(tensor))


def whole(tensor: Tensor) -> Tensor:
    """All rows. Of a sharded tensor they are gathered: all workers call it at once, and each gets them."""
    sharded: Any = tensor
    rows: Tensor = sharded.full_tensor() if is_sharded(tensor) else tensor
    return rows.detach()


def sharded_like(parameter: Tensor, rows: Tensor) -> Tensor:
    """A tensor sharded as the parameter is, of which this worker holds the given rows."""
    made = torch.zeros_like(parameter)
    own_part(made).copy_(rows)
    return made


def clip_gradients(parameters: Sequence[nn.Parameter], norm: float) -> None:
    """Scale gradients down to a norm that is taken over all of them, as `nn.utils.clip_grad_norm_` does."""
    if not any(map(is_sharded, parameters)):
        nn.utils.clip_grad_norm_(parameters, norm)
        return
    rows = [own_part(p.grad) for p in parameters if p.grad is not None and is_sharded(p)]
    rest = [p.grad for p in parameters if p.grad is not None and not is_sharded(p)]
    squared = _squared(rows, parameters[0].device)
    torch.distributed.all_reduce(squared)
    total = (squared + _squared(rest, squared.device)).sqrt()
    factor = (norm / (total + 1e-6)).clamp(max=1.0)  # its 1e-6
    torch._foreach_mul_([*rows, *rest], factor)


def all_finite(module: nn.Module) -> bool:
    """Whether no parameter holds NaN or an infinity. Of a sharded module all workers ask at once, and hear the same."""
    parameters = list(module.parameters())
    finite = all(bool(own_part(parameter).isfinite().all()) for parameter in parameters)
    if any(map(is_sharded, parameters)):
        others = torch.tensor(float(finite), device=own_part(parameters[0]).device)
        torch.distributed.all_reduce(others, op=torch.distributed.ReduceOp.MIN)
        finite = bool(others.item())
    return finite


def _trunks(module: nn.Module) -> list[nn.Module]:
    """The transformers in a module, each once, and none that is a part of another."""
    from transformers import PreTrainedModel  # noqa: PLC0415  slow import; here a model has been built already

    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for part in module.modules():  # from the outside in
        if isinstance(part, PreTrainedModel) and part.base_model not in inside:
            found.append(part.base_model)
            inside |= set(part.base_model.modules())
    return found


def _blocks(trunk: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: PLC0415  as above

    return [part for part in trunk.modules() if isinstance(part, GradientCheckpointingLayer)]


def _squared(tensors: list[Tensor], device: torch.device) -> Tensor:
    """Σ x² over the numbers of all of them, a scalar."""
    norms = torch._foreach_norm(tensors) if tensors else ()
    return torch.stack([torch.zeros((), device=device), *norms]).square().sum()


def _forget(trunk: Any, *_: object) -> None:
    """Drop what FSDP2 remembers of a pass for the way back, if there is none: a target's would grow for ever."""
    if not torch.is_grad_enabled():
        trunk.reset_iter_state()
