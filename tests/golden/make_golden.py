#!/usr/bin/env python3
"""Makes the reference values in values/ with PyTorch: see README.md.

Reads the description that cases.c prints; writes one safetensors file per operator, loss and optimizer.
Given numbers are multiples of 2^-10, so that float32 holds them exactly. Results come in float64 and in
float32, under f64/ and f32/.
"""
import json
import pathlib
import sys
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save

VALUES = pathlib.Path(__file__).parent / "values"
DTYPES = {"f64": torch.float64, "f32": torch.float32}


# --- what PyTorch calls it ------------------------------------------------------------------------
#
# a: attributes, defaults included;  x: inputs;  w: parameters by name;  t: target.
# A loss takes `reduction` too.

def vector(values, like):
    """A list attribute as a tensor; None where it is empty."""
    return torch.tensor(values, dtype=like.dtype) if values else None


def cross_entropy(a, x, t, reduction):
    return F.cross_entropy(x, t, weight=vector(a["weight"], x), label_smoothing=a["label_smoothing"],
                           reduction=reduction)


def lstm(x, w):
    """PyTorch has the batch of h and c in the second dimension."""
    names = [k for k in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0") if k in w]
    hidden = w["weight_hh_l0"].shape[1]
    states = [v.transpose(0, 1) for v in x[1:]] or [torch.zeros(1, len(x[0]), hidden, dtype=x[0].dtype)] * 2
    y, h, c = torch.lstm(x[0], states, [w[k] for k in names], len(names) == 4, 1, 0.0, True, False, True)
    return y, h.transpose(0, 1), c.transpose(0, 1)


def constant(value, shape):
    """One number for all elements, or each by itself."""
    given = torch.tensor(value, dtype=MODE["dtype"])
    return given.expand(shape) if len(value) == 1 else given.reshape(shape)


def aligned(x):
    """Samples of one rank, as broadcasting sees them: with leading ones behind the batch."""
    rank = max(v.ndim for v in x)
    return [v.reshape(len(v), *[1] * (rank - v.ndim), *v.shape[1:]) for v in x]


def sliced(x, a):
    index = [slice(None)] * x.ndim
    index[a["dim"]] = slice(a["start"], a["end"], a["step"])
    return x[tuple(index)]


class BatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Of any number of dimensions."""

    def _check_input_dim(self, x):
        pass


def batch_norm(a, x, w):
    """The module in place of the function, for what it does to its buffers: they are those in w."""
    module = BatchNorm(x[0].shape[1], **a).to(x[0].dtype).train(MODE["train"])
    for name in [k for k in w if k in module._buffers]:
        w[name] = w[name].detach()
        module._buffers[name] = w[name]
    for name in module._parameters:
        module._parameters[name] = w.get(name)
    return module(x[0])


OPS = {
    "linear": lambda a, x, w: F.linear(x[0], w["weight"], w.get("bias")),
    "matmul": lambda a, x, w: torch.matmul(*x) if len(x) == 2 and x[1].dim() == x[0].dim() else (
        torch.einsum("b...k,bkn->b...n", *x) if len(x) == 2 else x[0] @ w["weight"] + w.get("bias", 0)),
    "embedding": lambda a, x, w: F.embedding(x[0], w["weight"]),
    "lstm": lambda a, x, w: lstm(x, w),
    "parameter": lambda a, x, w: w["op"] + 0,
    "constant": lambda a, x, w: constant(a["value"], a["shape"]),
    "add": lambda a, x, w: torch.add(*aligned(x)),
    "sub": lambda a, x, w: torch.sub(*aligned(x)),
    "mul": lambda a, x, w: torch.mul(*aligned(x)),
    "div": lambda a, x, w: torch.div(*aligned(x)),
    "concat": lambda a, x, w: torch.cat(x, a["dim"]),
    "flatten": lambda a, x, w: torch.flatten(x[0], a["start_dim"], a["end_dim"]),
    "reshape": lambda a, x, w: torch.reshape(x[0], [len(x[0]), *a["shape"]]),
    "permute": lambda a, x, w: torch.permute(x[0], a["dims"]),
    "slice": lambda a, x, w: sliced(x[0], a),
    "relu": lambda a, x, w: F.relu(x[0]),
    "leaky_relu": lambda a, x, w: F.leaky_relu(x[0], a["negative_slope"]),
    "elu": lambda a, x, w: F.elu(x[0], a["alpha"]),
    "gelu": lambda a, x, w: F.gelu(x[0], approximate=a["approximate"]),
    "silu": lambda a, x, w: F.silu(x[0]),
    "sigmoid": lambda a, x, w: torch.sigmoid(x[0]),
    "tanh": lambda a, x, w: torch.tanh(x[0]),
    "softplus": lambda a, x, w: F.softplus(x[0], a["beta"], a["threshold"]),
    "softmax": lambda a, x, w: F.softmax(x[0], a["dim"]),
    "log_softmax": lambda a, x, w: F.log_softmax(x[0], a["dim"]),
    "batch_norm": lambda a, x, w: batch_norm(a, x, w),
    "layer_norm": lambda a, x, w: F.layer_norm(x[0], a["normalized_shape"], w.get("weight"), w.get("bias"), a["eps"]),
    "dropout": lambda a, x, w: x[0] * dropout_mask(x[0], a["p"]),
}
LOSSES = {
    "cross_entropy": cross_entropy,
    "nll": lambda a, x, t, reduction: F.nll_loss(x, t, vector(a["weight"], x), reduction=reduction),
    "mse": lambda a, x, t, reduction: F.mse_loss(x, t, reduction=reduction),
    "l1": lambda a, x, t, reduction: F.l1_loss(x, t, reduction=reduction),
    "huber": lambda a, x, t, reduction: F.huber_loss(x, t, reduction, a["delta"]),
    "bce_with_logits": lambda a, x, t, reduction: F.binary_cross_entropy_with_logits(
        x, t, pos_weight=vector(a["pos_weight"], x), reduction=reduction),
}
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


# --- dropout: PyTorch's generator is another, so the mask is made here, by the paper -----------------

def philox(seed, stream, row, block):
    """Philox 4x32-10: Salmon et al., SC 2011, section 3.3. As nn_rng_draw in core/rng.c."""
    low = 0xFFFFFFFF
    c = [block, stream, row & low, row >> 32]
    k = [seed & low, seed >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & low, (p0 >> 32) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def dropout_mask(x, p):
    """1/(1-p) where the element's number in [0, 1) is at least p, else 0. The layer is the graph's node 1."""
    if not MODE["train"] or p == 0:
        return torch.ones_like(x)
    rows, columns = len(x), x[0].numel()
    words = np.array([[philox(MODE["seed"], 1, r, c // 4)[c % 4] for c in range(columns)]
                      for r in range(rows)])
    kept = (words >> 8) * 2.0**-24 >= p
    scale = 1 / (1 - p) if p < 1 else 0
    return torch.tensor(kept * scale, dtype=x.dtype).reshape(x.shape)


MODE = {"train": True, "seed": 0}


# --- drawing ----------------------------------------------------------------------------------------

class Draw:
    """Numbers that depend on what they are for and on nothing else."""

    def __init__(self, *what):
        self.rng = np.random.default_rng(zlib.crc32("/".join(map(str, what)).encode()))

    def normal(self, shape, scale=1.0):
        return np.float32(np.round(self.rng.normal(0, scale, shape) * 1024) / 1024)

    def uniform(self, shape):
        return np.float32(self.rng.integers(64, 961, shape) / 1024)

    def halves(self, shape):
        """Where kinks are usual: -1.5, -1, ... 1.5."""
        return np.float32(self.rng.integers(-3, 4, shape) / 2)

    def ids(self, shape, classes):
        return np.int64(self.rng.integers(0, classes, shape))


def leaf(array, dtype):
    """A tensor of this type that a gradient is wanted for; ids stay what they are."""
    if array.dtype == np.int64:
        return torch.tensor(array)
    return torch.tensor(array, dtype=dtype, requires_grad=True)


def at_kink(gradients, inputs, rng):
    """Whether a gradient jumps within a small step from the inputs, in some random directions."""
    for _ in range(8):
        step = [5e-3 * rng.choice([-1, 1], x.shape) if x.dtype != np.int64 else 0 for x in inputs]
        ahead = gradients([x + s for x, s in zip(inputs, step)])
        behind = gradients([x - s for x, s in zip(inputs, step)])
        if any(np.abs(a - b).max() > 0.1 for a, b in zip(ahead, behind)):
            return True
    return False


def draw_inputs(case, example, index, variant, rows, gradients_of):
    """Inputs of a variant. Ordinary ones are drawn again until they are away from kinks."""
    for attempt in range(1000):
        draw = Draw(case["name"], index, attempt)
        given = {}
        for i, shape in enumerate(example["inputs"]):
            shape = [rows, *shape]
            if example["ids"] and not case["loss"]:
                given[f"x{i}"] = draw.ids(shape, example["classes"])
            elif variant == "kinks":
                given[f"x{i}"] = draw.halves(shape)
            else:
                given[f"x{i}"] = draw.normal(shape) * np.float32(30 if variant == "large" else 1)
        for name, shape in example.get("params", {}).items():
            given[f"w/{name}"] = draw.normal(shape)
        for name, shape in example.get("buffers", {}).items():  # a variance is positive
            given[f"w/{name}"] = draw.uniform(shape)
        for name in example.get("counts", []):
            given[f"w/{name}"] = draw.ids([], 9)
        if case["loss"]:
            shape = [rows, *example["target"]]
            given["target"] = (draw.ids(shape, example["classes"]) if example["ids"] else
                               draw.halves(shape) if variant == "kinks" else draw.uniform(shape))
            given["weight_rows"] = draw.normal([rows])
            given["weight_full"] = draw.normal([rows, *example["unreduced"]])
        if not case["kinks"] or variant != "ordinary" or not at_kink(*gradients_of(given), draw.rng):
            return given, draw
    raise SystemExit(f"{case['name']}, example {index}: no inputs away from kinks")


def inputs_of(given):
    return [given[k] for k in sorted(given) if k[0] == "x"]


# --- operators ---------------------------------------------------------------------------------------

def outputs_of(y):
    """The output, or the several outputs, of an operator."""
    return y if isinstance(y, tuple) else (y,)


def operator_values(case, example, index, variant, rows):
    attrs = case["defaults"] | example["attrs"]
    apply = OPS[case["name"]]
    names = ["y"] + [f"y.{name}" for name in case.get("more_outputs", [])]

    def leaves(given, xs, dtype):
        x = [leaf(v, dtype) for v in xs]
        return x, {k[2:]: leaf(v, dtype) for k, v in given.items() if k.startswith("w/")}

    def gradients_of(given):
        def gradients(xs):
            x, w = leaves(given, xs, torch.float64)
            y = outputs_of(apply(attrs, x, w))
            return [g.numpy() for g in torch.autograd.grad(sum(v.sum() for v in y),
                                                           [v for v in x if v.requires_grad])]
        return gradients, inputs_of(given)

    given, draw = draw_inputs(case, example, index, variant, rows, gradients_of)
    out = dict(given)
    for kind, dtype in DTYPES.items():
        MODE.update(dtype=dtype)
        x, w = leaves(given, inputs_of(given), dtype)
        y = outputs_of(apply(attrs, x, w))
        for name, value in zip(names, y):
            if f"d_{name}" not in out:
                out[f"d_{name}"] = draw.normal(value.shape)
            out[f"{kind}/{name}"] = value.detach().numpy()
        wanted = {f"d_x{i}": v for i, v in enumerate(x) if v.requires_grad}
        wanted |= {f"d_w/{k}": v for k, v in w.items() if k in example["params"]}
        out |= {f"{kind}/after/{k}": w[k].detach().numpy() for k in (*example.get("buffers", {}), *example.get("counts", []))}
        upstream = [torch.tensor(out[f"d_{name}"], dtype=dtype) for name in names]
        for k, g in zip(wanted, wanted and torch.autograd.grad(y, list(wanted.values()), upstream)):
            out[f"{kind}/{k}"] = g.numpy()
    return out


def loss_values(case, example, index, variant, rows):
    attrs = case["defaults"] | example["attrs"]
    apply = LOSSES[case["name"]]

    def loss(given, x, dtype, reduction, weight):
        t = torch.tensor(given["target"]) if example["ids"] else torch.tensor(given["target"], dtype=dtype)
        if not weight:
            return apply(attrs, x, t, reduction)
        each = apply(attrs, x, t, "none")
        w = torch.tensor(given[weight], dtype=dtype)
        total = (each * w.reshape([*w.shape, *[1] * (each.ndim - w.ndim)])).sum()
        if reduction == "sum":
            return total
        divisor = (each.sum() / apply(attrs, x, t, "mean")).detach()
        return total / divisor

    def gradients_of(given):
        def gradients(xs):
            x = leaf(xs[0], torch.float64)
            return [torch.autograd.grad(loss(given, x, x.dtype, "sum", ""), x)[0].numpy()]
        return gradients, inputs_of(given)

    given, _ = draw_inputs(case, example, index, variant, rows, gradients_of)
    out = dict(given)
    for kind, dtype in DTYPES.items():
        for reduction in ("mean", "sum"):
            for weight in ("", "weight_rows", "weight_full"):
                x = leaf(given["x0"], dtype)
                value = loss(given, x, dtype, reduction, weight)
                name = f"{kind}/{reduction}{weight and '_' + weight[7:]}"
                out[f"{name}/loss"] = value.detach().numpy()
                out[f"{name}/d_x0"] = torch.autograd.grad(value, x)[0].numpy()
    return out


def variants(case, example):
    yield "ordinary"
    if case["loss"] or not example["ids"]:
        yield "large"
    if case["kinks"]:
        yield "kinks"
    if case["rng"] or case.get("couples"):
        yield "eval"


def op_file(case, rows, seed):
    tensors = {}
    for index, example in enumerate(case["examples"]):
        for variant in variants(case, example):
            MODE.update(train=variant != "eval", seed=seed)
            make = loss_values if case["loss"] else operator_values
            for name, array in make(case, example, index, variant, rows).items():
                tensors[f"{index}/{variant}/{name}"] = array
    return tensors


# --- optimizers ---------------------------------------------------------------------------------------

# Both, one of them, the other, neither; and the bias alone for long.
PARTIAL = {"weight": {0, 1, 3, 4, 6, 18, 19}, "bias": {1, 2, 4} | set(range(7, 20))}


def optimizer_file(case, steps, named=None):
    """Every example on a weight [3, 4] and a bias [3]: the gradients of each step, the parameters after
    each, and the state at the end. `named`: by parameter, the steps at which it has a gradient; at the
    others that is None."""
    shapes = {"weight": [3, 4], "bias": [3]}
    tensors = {}
    for index, example in enumerate(case["examples"]):
        draw = Draw(case["name"], index)
        start = {k: draw.normal(s) for k, s in shapes.items()}
        grads = {k: draw.normal([steps, *s]) for k, s in shapes.items()}
        for k in shapes:
            tensors[f"{index}/w/{k}"], tensors[f"{index}/g/{k}"] = start[k], grads[k]
            if named:
                tensors[f"{index}/named/{k}"] = np.array([float(step in named[k]) for step in range(steps)])
        attrs = case["defaults"] | example["attrs"]
        clip = attrs.pop("clip_grad_norm")
        attrs = {k: tuple(v) if isinstance(v, list) else v for k, v in attrs.items()}
        for kind, dtype in DTYPES.items():
            w = {k: leaf(v, dtype) for k, v in start.items()}
            optimizer = OPTIMIZERS[case["name"]](list(w.values()), **attrs)
            path = {k: [] for k in shapes}
            for step in range(steps):
                for k in shapes:
                    w[k].grad = torch.tensor(grads[k][step], dtype=dtype)
                    if named and step not in named[k]:
                        w[k].grad = None
                if clip:
                    torch.nn.utils.clip_grad_norm_(w.values(), clip)
                optimizer.step()
                for k in shapes:
                    path[k].append(w[k].detach().clone().numpy())
            for k in shapes:
                tensors[f"{index}/{kind}/w/{k}"] = np.stack(path[k])
                for slot, value in optimizer.state[w[k]].items():
                    if slot != "step" and value is not None:
                        tensors[f"{index}/{kind}/{slot}/{k}"] = value.numpy()
    return tensors


# --- a graph with several losses ------------------------------------------------------------------------

def several_losses():
    """h = gelu(linear(x)), z = h + linear(h), and at once: 0.7 cross_entropy(z, y), -0.3 mse(h, t) summed
    and weighted, and an upstream gradient of h."""
    draw = Draw("several losses")
    given = {"x": draw.normal([4, 6]), "y": draw.ids([4], 5), "t": draw.uniform([4, 5]),
             "weight": draw.normal([4]), "upstream/h": draw.normal([4, 5]),
             "w/a.weight": draw.normal([5, 6]), "w/a.bias": draw.normal([5]),
             "w/b.weight": draw.normal([5, 5]), "w/b.bias": draw.normal([5])}
    tensors = dict(given)
    for kind, dtype in DTYPES.items():
        v = {k: leaf(a, dtype) for k, a in given.items()}
        h = F.gelu(F.linear(v["x"], v["w/a.weight"], v["w/a.bias"]))
        z = h + F.linear(h, v["w/b.weight"], v["w/b.bias"])
        losses = [0.7 * F.cross_entropy(z, v["y"]),
                  -0.3 * (F.mse_loss(h, v["t"].detach(), reduction="none") * v["weight"].detach()[:, None]).sum()]
        total = sum(losses) + (v["upstream/h"].detach() * h).sum()
        wanted = {"d_x": v["x"], "d_h": h, "d_z": z} | {f"d_{k}": v[k] for k in v if k[:2] == "w/"}
        for k, g in zip(wanted, torch.autograd.grad(total, list(wanted.values()))):
            tensors[f"{kind}/{k}"] = g.numpy()
        tensors[f"{kind}/losses"] = torch.stack(losses).detach().numpy()
    return tensors


def write(name, tensors, case=None):
    tensors = {k: np.array(v, order="C") for k, v in tensors.items()}
    data = save(tensors, {"case": json.dumps(case)} if case else None)
    (VALUES / f"{name}.safetensors").write_bytes(data)


def main():
    cases = json.load(sys.stdin)
    VALUES.mkdir(exist_ok=True)
    known = OPS | LOSSES
    for case in cases["ops"] + cases["optimizers"]:
        if case["name"] not in known | OPTIMIZERS:
            raise SystemExit(f"make_golden.py has no PyTorch expression for {case['name']}")
        if not case["examples"]:
            raise SystemExit(f"{case['name']} has no examples")
    for old in VALUES.glob("*.safetensors"):
        old.unlink()
    for case in cases["ops"]:
        write(case["name"], op_file(case, cases["rows"], cases["seed"]), case)
    for case in cases["optimizers"]:
        write(case["name"], optimizer_file(case, cases["steps"]), case)
        write(f"partial_{case['name']}", optimizer_file(case, cases["steps"], PARTIAL), case)
    write("several_losses", several_losses())


if __name__ == "__main__":
    main()
