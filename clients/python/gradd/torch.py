"""A model that gradd holds, as a layer of a local PyTorch model.

    remote = gradd.torch.RemoteModule(client, "body", apply=True)
    loss = criterion(head(remote(stem(x))), y)
    loss.backward()      # reaches through the service to the stem, and updates the remote part
    optimizer.step()     # updates the local parts

The forward pass leaves its tape with the service, under a context. The backward pass sends the upstream
gradient of the outputs, and gets the gradient of what was sent. Both see the same version of the model,
whatever is applied to it meanwhile.
"""

from __future__ import annotations

import collections
from typing import Any

import torch

from . import Answer, Client, GraddError
from ._tensor import Tensor, numpy, tensor_of_torch

if numpy is None:
    raise ImportError("gradd.torch needs numpy")

__all__ = ["RemoteModule"]


def _wire(tensor: torch.Tensor) -> Tensor:
    return tensor_of_torch(tensor.detach(), torch)


def _unwire(values: Any, like: torch.Tensor) -> torch.Tensor:
    array = values.astype(values.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(array).to(device=like.device, dtype=like.dtype)


def _scalars(answer: Answer) -> Answer:
    return {name: value for name, value in answer.items() if name not in ("outputs", "input_gradients")}


class _Tape:
    """A kept forward pass of a module. It is let go with the local graph, if not before."""

    def __init__(self, module: RemoteModule, context: str) -> None:
        self.module = module
        self.context: str | None = context

    def release(self) -> None:
        if self.context is not None:
            self.module._dropped.append(self.context)
            self.context = None

    def __del__(self) -> None:
        # No calls from here: this may run at any point of any thread. The module's next call sees to it.
        self.release()


class _Remote(torch.autograd.Function):
    """The anchor is an empty tensor that wants a gradient: it has backward called where no input does."""

    @staticmethod
    def forward(ctx: Any, module: RemoteModule, anchor: torch.Tensor, *inputs: torch.Tensor) -> Any:
        answer = module._forward(inputs, retain=True)
        ctx.tape = _Tape(module, answer["context"])
        ctx.anchor = anchor
        ctx.inputs = [torch.empty(0, dtype=x.dtype, device=x.device) for x in inputs]
        ctx.set_materialize_grads(False)
        outputs = module._outputs_of(answer, inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *d_outputs: torch.Tensor | None) -> Any:
        module, wanted = ctx.tape.module, ctx.needs_input_grad[2:]
        if ctx.tape.context is None:
            raise RuntimeError("the tape is gone after one backward: give RemoteModule retain_graph=True")
        d_inputs = module._backward(ctx.tape.context, d_outputs, any(wanted))
        if not module.retain_graph:
            ctx.tape.release()
            module.release()
        found = [
            _unwire(d_inputs[name], like) if need else None
            for name, like, need in zip(module.input_names, ctx.inputs, wanted)
        ]
        return None, torch.zeros_like(ctx.anchor), *found


class RemoteModule(torch.nn.Module):
    """The model as a module: its inputs in their order to its outputs in theirs, one tensor or a tuple.

    What a backward pass does with the gradients of the remote parameters is said by `apply` (True, or
    {"lr": 0.1}), by `accumulate` (True, or {"scale": 0.5}; `client.step` applies the sum), or by neither:
    then they are not even computed. `options` go to every such `client.backward`: worker, max_staleness.

    `train()` and `eval()` choose the mode of the remote model too. Seeds are drawn from PyTorch's generator,
    so that `torch.manual_seed` governs remote dropout as it does local. `last_forward` and `last_backward`
    are the answers' members without tensors: versions seen and made, the seed that replays the dropout.

    Every backward pass of a graph needs its tape. It is let go after the first; with `retain_graph=True`
    only when the graph is dropped, for `loss.backward(retain_graph=True)` and a second one.

    A copy, and a module that was saved and loaded, is the same remote model: its weights stay at the service,
    and its `state_dict` says where (`_extra_state`: service, model, incarnation and version as last seen). A
    `state_dict` of another model is refused, as its weights cannot be loaded from here.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        apply: bool | dict[str, float] = False,
        accumulate: bool | dict[str, float] = False,
        retain_graph: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.client = client
        self.model = model
        self.apply_gradients = apply
        self.accumulate_gradients = accumulate
        self.retain_graph = retain_graph
        self.options = options
        described = client.describe(model)
        self.input_names = [node["name"] for node in described["nodes"] if node["op"] == "input"]
        self.output_names = list(described["outputs"])
        self.last_forward: Answer = {}
        self.last_backward: Answer = {}
        self._seen = (described["incarnation"], described["version"])
        self._dropped: collections.deque[str] = collections.deque()
        self._anchor = torch.zeros(0, requires_grad=True)

    def __getstate__(self) -> dict[str, Any]:
        # The tapes that wait to be let go are the original's.
        return {**self.__dict__, "_dropped": collections.deque()}

    def get_extra_state(self) -> dict[str, Any]:
        incarnation, version = self._seen
        return {
            "service": self.client.url,
            "model": self.model,
            "incarnation": incarnation,
            "version": version,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state["model"] != self.model:
            raise RuntimeError(
                f"the state is of the remote model {state['model']!r} at {state['service']}, and this module of "
                f"{self.model!r} at {self.client.url}: remote weights are set through the client"
            )

    def _see(self, answer: Answer) -> Answer:
        self._seen = (answer["incarnation"], answer.get("applied_version", answer["version"]))
        return _scalars(answer)

    def extra_repr(self) -> str:
        return f"{self.model!r}, {', '.join(self.input_names)} -> {', '.join(self.output_names)}"

    def forward(self, *inputs: torch.Tensor) -> Any:
        if len(inputs) != len(self.input_names):
            raise TypeError(
                f"{self.model!r} takes {len(self.input_names)} inputs: {', '.join(self.input_names)}"
            )
        changes = bool(self.apply_gradients or self.accumulate_gradients)
        if torch.is_grad_enabled() and (changes or any(x.requires_grad for x in inputs)):
            return _Remote.apply(self, self._anchor, *inputs)  # type: ignore[no-untyped-call]
        outputs = self._outputs_of(self._forward(inputs, retain=False), inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def release(self) -> None:
        """Lets the tapes go that no local graph needs any more. Every call does it first."""
        while self._dropped:
            context = self._dropped.popleft()
            try:
                self.client.delete_context(context)
            except GraddError as problem:
                if problem.status != 404:  # it expired, or went with its model
                    raise

    def _forward(self, inputs: tuple[torch.Tensor, ...], retain: bool) -> Answer:
        self.release()
        sent = {name: _wire(tensor) for name, tensor in zip(self.input_names, inputs)}
        mode, seed = "eval", None
        if self.training:
            mode, seed = "train", int(torch.randint(2**53, ()))
        answer = self.client.forward(self.model, sent, mode=mode, seed=seed, retain=retain)
        self.last_forward = self._see(answer)
        return answer

    def _outputs_of(self, answer: Answer, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """In the type of the first floating input, and on its device."""
        like = next((x for x in inputs if x.is_floating_point()), inputs[0].new_empty(0, dtype=torch.float32))
        return tuple(_unwire(answer["outputs"][name], like) for name in self.output_names)

    def _backward(
        self, context: str, d_outputs: tuple[torch.Tensor | None, ...], wanted: bool
    ) -> dict[str, Any]:
        # Retained whatever happens: if the answer is lost, the gradient of the inputs can be asked for again.
        upstream = {name: _wire(d) for name, d in zip(self.output_names, d_outputs) if d is not None}
        returns = ["inputs"] if wanted else []
        answer = self.client.backward(
            context=context,
            upstream=upstream,
            returns=returns,
            apply=self.apply_gradients or None,
            accumulate=self.accumulate_gradients or None,
            retain=True,
            **self.options,
        )
        self.last_backward = self._see(answer)
        if answer.get("replayed") and wanted:
            answer = self.client.backward(context=context, upstream=upstream, returns=returns, retain=True)
        d_inputs: dict[str, Any] = answer.get("input_gradients", {})
        return d_inputs
