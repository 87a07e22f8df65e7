"""The calls of the service as methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._document import (
    SAFETENSORS,
    Answer,
    check_names,
    decode_document,
    encode_document,
    given,
    member,
    open_file,
    parts,
    wired,
)
from ._requests import IfMatch, Requests, path_of
from ._tensor import Tensors, value_of


class Client(Requests):
    """The calls of one daemon, at `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`. Threads may share it.

    For https, `ca` is a file of the authorities that are trusted instead of the system's, and `certificate`
    the client's own: a PEM file, or a pair of those of the certificate and of its key.

    A request whose answer is lost (the connection fails, or is silent for `timeout` seconds), or that is
    answered by 429, 503 or 409 `in-flight`, is sent again up to `retries` times: after the time that
    Retry-After asks for, and otherwise after a random part of `backoff` seconds, doubled each time, at most
    `max_wait`. If a longer wait is asked for, the error is raised at once. Problems are raised as
    GraddError, and ConnectionError when no answer came at all.

    Calls that change something carry an Idempotency-Key, the same at every retry, so that they have one
    effect; an answer to a retry may be marked `"replayed": True`, and has then no tensors. `key` gives a key
    of your own, such that a program which was started anew may repeat its last request. `if_match` makes a
    change only at one version: an ETag, or an answer that tells of it. Otherwise: 412 `stale`.

    Answers are dicts with the members of the service's documents; see its docs/api.md.

    A copy shares the connections. A pickle has the address and the settings, and no token: where there was
    one, GRADD_TOKEN of the environment takes its place.
    """

    # --- models -------------------------------------------------------------------------------------

    def create(self, specification: Mapping[str, Any], *, key: str | None = None) -> Answer:
        """POST /models: makes a model, and describes it."""
        return self._change_json("POST", "/models", specification, key, None, "specification")

    def models(self) -> list[Answer]:
        """GET /models: name, incarnation and version of each."""
        models: list[Answer] = self._get("/models")["models"]
        return models

    def describe(self, model: str) -> Answer:
        """GET /models/{m}."""
        return self._get(path_of("models", model))

    def patch(
        self,
        model: str,
        changes: Mapping[str, Any],
        *,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """PATCH /models/{m}: changes settings by JSON Merge Patch, and describes the model."""
        return self._change_json("PATCH", path_of("models", model), changes, key, if_match, "changes")

    def delete(self, model: str, *, if_match: IfMatch = None, key: str | None = None) -> Answer:
        """DELETE /models/{m}."""
        return self._change_json("DELETE", path_of("models", model), None, key, if_match)

    def restore(
        self,
        model: str,
        version: int | None = None,
        *,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /models/{m}/restore: goes back to a snapshot: the newest, or that of `version`."""
        target = path_of("models", model, "restore")
        return self._change_json("POST", target, given(version=version), key, if_match)

    # --- passes -------------------------------------------------------------------------------------

    def forward(
        self,
        model: str | Mapping[str, Any],
        inputs: Tensors,
        *,
        parameters: Tensors | None = None,
        outputs: Sequence[str] | None = None,
        mode: str | None = None,
        seed: int | None = None,
        first_row: int | None = None,
        retain: bool = False,
        dtype: str | None = None,
    ) -> Answer:
        """POST /forward: `outputs`, and with `retain` a `context` for a backward later. A model is a name,
        or a specification with its parameters. If the answer with a context is lost, the retry makes another
        context, and the first one stays until its time is up."""
        members = given(
            model=model,
            outputs=None if outputs is None else check_names("outputs", outputs),
            mode=mode,
            seed=seed,
            first_row=first_row,
            retain=retain,
            dtype=dtype,
        )
        body = encode_document(members, {"inputs": inputs, "parameters": parameters})
        head = {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS}
        return decode_document(self._send("POST", "/forward", head, body).data)

    def backward(
        self,
        model: str | Mapping[str, Any] | None = None,
        inputs: Tensors | None = None,
        *,
        context: str | None = None,
        targets: Tensors | None = None,
        upstream: Tensors | None = None,
        parameters: Tensors | None = None,
        returns: Sequence[str] | None = None,
        apply: bool | Mapping[str, float] | None = None,
        accumulate: bool | Mapping[str, float] | None = None,
        retain: bool | None = None,
        mode: str | None = None,
        seed: int | None = None,
        first_row: int | None = None,
        losses: Sequence[int] | None = None,
        normalizer: float | Sequence[float] | None = None,
        dtype: str | None = None,
        worker: str | None = None,
        max_staleness: int | None = None,
        wait: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /backward: gradients of a loss (`targets`), of `upstream` gradients or of both, at `inputs`
        or at a kept `context`; returned, or with `apply` or `accumulate` put to use.

        A context is used up unless it is retained. So if the answer is lost, its gradients are: the retry
        finds no context (404), or is a replay without tensors. Where they matter, retain the context, and
        delete it once they are there.
        """
        members = given(
            model=model,
            context=context,
            apply=apply,
            accumulate=accumulate,
            retain=retain,
            mode=mode,
            seed=seed,
            first_row=first_row,
            losses=losses,
            normalizer=normalizer,
            dtype=dtype,
            worker=worker,
            max_staleness=max_staleness,
            wait=wait,
        )
        if returns is not None:
            members["return"] = check_names("returns", returns)
        maps = {"inputs": inputs, "targets": targets, "upstream": upstream, "parameters": parameters}
        body = encode_document(members, maps)
        if apply or accumulate:
            return self._change("POST", "/backward", body, SAFETENSORS, key, if_match)
        head = {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS}
        return decode_document(self._send("POST", "/backward", head, body).data)

    def step(
        self,
        model: str,
        *,
        mean: bool = False,
        lr: float | None = None,
        max_staleness: int | None = None,
        wait: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /step: applies what was accumulated, as a sum or as a mean."""
        document = given(model=model, mean=mean, lr=lr, max_staleness=max_staleness, wait=wait)
        return self._change_json("POST", "/step", document, key, if_match)

    # --- parameters ---------------------------------------------------------------------------------

    def parameters(
        self, model: str, names: Sequence[str] | None = None, *, dtype: str | None = None
    ) -> Answer:
        """GET /models/{m}/parameters: `incarnation`, `version` and `parameters`, all or those of `names`.

        The last few pulls are remembered: while the version stands, the service sends no tensors again.
        What is returned is the caller's own in either case, and may be written to.
        """
        listed = None if names is None else ",".join(check_names("names", names))
        target = path_of("models", model, "parameters", names=listed, dtype=dtype)
        with self._lock:
            known = self._pulls.get(target)
        head = {"Accept": SAFETENSORS}
        if known:
            head["If-None-Match"] = known[0]
        status, answered, data = self._send("GET", target, head)
        if known and status == 304:
            data = bytearray(known[1])
        elif answered.get("ETag"):
            known = (answered["ETag"], bytes(data))
        if known:
            self._remember(target, known)
        tensors, metadata = open_file(data)
        answer: Answer = {name: member(name, text) for name, text in metadata.items()}
        answer["parameters"] = {name: value_of(tensor) for name, tensor in tensors.items()}
        return answer

    def set_parameters(
        self,
        model: str,
        parameters: Tensors,
        *,
        partial: bool = False,
        wait: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """PUT /models/{m}/parameters: sets all, or with `partial` some; `parameters` are those of an answer's
        "parameters"."""
        target = path_of("models", model, "parameters", partial="true" if partial else None, wait=wait)
        return self._change("PUT", target, parts("parameters", parameters), SAFETENSORS, key, if_match)

    def blend(
        self,
        model: str,
        source: str,
        tau: float,
        *,
        wait: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /models/{m}/parameters: θ ← τ θ_source + (1−τ) θ."""
        document = given(**{"from": source, "tau": tau, "wait": wait})
        return self._change_json("POST", path_of("models", model, "parameters"), document, key, if_match)

    # --- gradients ----------------------------------------------------------------------------------

    def push(
        self,
        model: str,
        gradients: Tensors,
        *,
        incarnation: str,
        version: int,
        buffers: Tensors | None = None,
        samples: int | None = None,
        worker: str | None = None,
        apply: bool | Mapping[str, float] | None = None,
        accumulate: bool | Mapping[str, float] | None = None,
        max_staleness: int | None = None,
        wait: str | None = None,
        wire: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /models/{m}/gradients: applies, or with `accumulate` adds, gradients computed elsewhere, of
        all parameters or some. They are of the `incarnation` and `version` that were pulled. `wire` sends
        them as F16 or BF16. `buffers` are the statistics that came with them."""
        members = given(
            incarnation=incarnation,
            version=version,
            samples=samples,
            worker=worker,
            apply=apply,
            accumulate=accumulate,
            max_staleness=max_staleness,
            wait=wait,
        )
        maps = {"gradients": wired("gradients", gradients, wire)}
        if buffers:
            maps["buffers"] = wired("buffers", buffers, None)
        body = encode_document(members, maps)
        return self._change("POST", path_of("models", model, "gradients"), body, SAFETENSORS, key, if_match)

    def gradients(self, model: str, *, dtype: str | None = None) -> Answer:
        """GET /models/{m}/gradients: what was accumulated and not yet applied."""
        target = path_of("models", model, "gradients", dtype=dtype)
        return decode_document(self._send("GET", target, {"Accept": SAFETENSORS}).data)

    def clear_gradients(self, model: str, *, if_match: IfMatch = None, key: str | None = None) -> Answer:
        """DELETE /models/{m}/gradients: forgets it; `cleared` is how many contributions that were."""
        return self._change_json("DELETE", path_of("models", model, "gradients"), None, key, if_match)

    # --- the optimizer's state ----------------------------------------------------------------------

    def optimizer(self, model: str, *, dtype: str | None = None) -> Answer:
        """GET /models/{m}/optimizer: `op`, `state` by SLOT.PARAMETER, `steps` (a number, or a mapping where
        parameters differ), and `fresh` where buffers await their first step."""
        target = path_of("models", model, "optimizer", dtype=dtype)
        return decode_document(self._send("GET", target, {"Accept": SAFETENSORS}).data)

    def set_optimizer(
        self,
        model: str,
        state: Tensors,
        *,
        steps: int | Mapping[str, int],
        fresh: Sequence[str] | None = None,
        op: str | None = None,
        wait: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """PUT /models/{m}/optimizer: sets the whole state. `steps` is how many steps all parameters have taken,
        or that of each by its name; `state` is by SLOT.PARAMETER. Buffers that `fresh` does not name are used as they
        are given."""
        body = encode_document(given(steps=steps, fresh=fresh, op=op, wait=wait), {"state": state})
        return self._change("PUT", path_of("models", model, "optimizer"), body, SAFETENSORS, key, if_match)

    # --- contexts -----------------------------------------------------------------------------------

    def contexts(self) -> list[Answer]:
        """GET /contexts: the kept forward passes."""
        contexts: list[Answer] = self._get("/contexts")["contexts"]
        return contexts

    def context(self, context: str) -> Answer:
        """GET /contexts/{id}."""
        return self._get(path_of("contexts", context))

    def delete_context(self, context: str, *, key: str | None = None) -> Answer:
        """DELETE /contexts/{id}: lets one go."""
        return self._change_json("DELETE", path_of("contexts", context), None, key)

    # --- the service --------------------------------------------------------------------------------

    def ops(self) -> Answer:
        """GET /ops: the operators, losses and optimizers, with their attributes and formulas."""
        return self._get("/ops")

    def health(self) -> Answer:
        """GET /healthz: whether the process is alive, and its version."""
        return self._get("/healthz")

    def ready(self) -> Answer:
        """GET /readyz: whether it takes requests. A stopping one is waited for like any 503."""
        return self._get("/readyz")

    def metrics(self) -> str:
        """GET /metrics: what the service counts, as Prometheus reads it."""
        text: str = self._answer("GET", "/metrics", {})
        return text

    def openapi(self) -> Answer:
        """GET /openapi.json: these calls as an OpenAPI document."""
        return self._get("/openapi.json")
