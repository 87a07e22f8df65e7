#!/usr/bin/env python3
"""Makes cases for tests/api/cases with PyTorch, in float64: see README.md.

batch_norm_torch.json   buffers: one step, sums, rounds, pushes that race, contexts, frozen layers, no momentum
gpt_torch.json          a GPT block with a tied head: a state_dict in, twenty steps of Adam, a state_dict out
"""
import copy
import json
import pathlib

import torch
from torch import nn
from torch.nn import functional as F

CASES = pathlib.Path(__file__).parent.parent / "api" / "cases"


def state(module):
    return {name: value.tolist() for name, value in module.state_dict().items()}


def step(request, tolerance=None, **members):
    return {"do": request} | members | ({"tolerance": tolerance} if tolerance else {})


def expect_state(module, tolerance, **members):
    return step("GET /models/m/parameters", tolerance, answer={"parameters": state(module)} | members)


# --- batch norm ------------------------------------------------------------------------------------

EXACT = 1e-12


class Net(nn.Module):
    def __init__(self, momentum):
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.bn = nn.BatchNorm1d(4, momentum=momentum)
        self.b = nn.Linear(4, 2)

    def forward(self, x):
        return self.b(F.relu(self.bn(self.a(x))))


def net(momentum=0.1):
    torch.manual_seed(7)
    module = Net(momentum).double()
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if buffer.dtype == torch.float64:
                buffer.uniform_(0.5, 1.5)
        module.bn.weight.uniform_(0.5, 1.5)
        module.bn.num_batches_tracked.fill_(3)
    return module


def batches(*rows):
    torch.manual_seed(11)
    return [(torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64)) for n in rows]


def members(batch):
    return {"inputs": {"x": batch[0].tolist()}, "targets": {"y": batch[1].tolist()}}


def backward(module, batch):
    loss = F.mse_loss(module(batch[0]), batch[1])
    loss.backward()
    return loss.item()


def sgd(module):
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


def model(module, frozen=False, **more):
    layers = [{"op": "linear", "name": "a", "out_features": 4},
              {"op": "batch_norm", "name": "bn", "momentum": module.bn.momentum, "trainable": not frozen},
              {"op": "relu"}, {"op": "linear", "name": "b", "out_features": 2}]
    return [step("POST /models", status=201, body={
                "name": "m", "dtype": "F64", "inputs": {"x": {"shape": [3]}}, "layers": layers,
                "loss": {"op": "mse"}, "optimizer": {"op": "sgd", "lr": 0.1, "momentum": 0.9}} | more),
            step("PUT /models/m/parameters", body={"parameters": state(module)}),
            step("GET /models/m", take={"I": "incarnation"})]


def steps_one_by_one(momentum):
    module, given = net(momentum), batches(5, 2, 7)
    steps, optimizer = model(module), sgd(module)
    for batch in given:
        optimizer.zero_grad()
        loss = backward(module, batch)
        optimizer.step()
        steps.append(step("POST /backward", EXACT, body={"model": "m", "apply": True} | members(batch),
                          answer={"loss": loss}))
        steps.append(expect_state(module, EXACT))
    outputs = module.eval()(given[0][0]).tolist()
    steps.append(step("POST /forward", EXACT, body={"model": "m", "inputs": {"x": given[0][0].tolist()},
                                                    "outputs": ["b"]}, answer={"outputs": {"b": outputs}}))
    return steps


def accumulated(momentum, scales):
    module, given = net(momentum), batches(5, 2, 7)
    steps, optimizer = model(module), sgd(module)
    for batch, scale in zip(given, scales):
        (scale * F.mse_loss(module(batch[0]), batch[1])).backward()
        steps.append(step("POST /backward", body={"model": "m", "accumulate": {"scale": scale}} | members(batch)))
    optimizer.step()
    return steps + [step("POST /step", body={"model": "m"}), expect_state(module, EXACT)]


def frozen():
    module, given = net(), batches(5)
    module.bn.requires_grad_(False)
    steps, optimizer = model(module, frozen=True), sgd(module)
    backward(module, given[0])
    optimizer.step()
    return steps + [step("POST /backward", body={"model": "m", "apply": True} | members(given[0])),
                    expect_state(module, EXACT)]


def replicas(momentum, given):
    """The gradient and the buffers of a replica for each batch, all begun at one state."""
    whole, out = net(momentum), []
    for batch in given:
        replica = copy.deepcopy(whole)
        backward(replica, batch)
        out.append(replica)
    return whole, out


def raced(momentum):
    """Two workers pull one version and push, one after the other: what each has seen comes after the other's."""
    given = batches(5, 6)
    module, workers = replicas(momentum, given)
    steps, optimizer = model(module), sgd(module)
    begun = copy.deepcopy(module)
    for batch, worker in zip(given, workers):
        for p, q in zip(module.parameters(), worker.parameters()):
            p.grad = q.grad
        optimizer.step()
        with torch.no_grad():  # the layer's forward at the version that was pulled, at the buffers of now
            begun.bn.load_state_dict(begun.bn.state_dict() | dict(module.bn.named_buffers()))
            begun.bn(begun.a(batch[0]))
            module.bn.load_state_dict(module.bn.state_dict() | dict(begun.bn.named_buffers()))
        pushed = copy.deepcopy(net(momentum))
        fresh = pushed.bn
        fresh.reset_running_stats()
        fresh.momentum = 1.0
        fresh(pushed.a(batch[0]))
        buffers = {f"bn.{k}": v.tolist() for k, v in fresh.named_buffers()}
        steps.append(step("POST /models/m/gradients", body={
            "incarnation": "$I", "version": 1, "buffers": buffers,
            "gradients": {k: v.grad.tolist() for k, v in worker.named_parameters()}}))
    return steps + [expect_state(module, EXACT, version=3)]


def used_twice():
    """A context applied twice: two steps, and one batch."""
    module, given = net(), batches(5)
    steps, optimizer = model(module), sgd(module)
    backward(module, given[0])
    optimizer.step()
    optimizer.step()
    body = {"context": "$C", "apply": True, "targets": members(given[0])["targets"]}
    steps.append(step("POST /forward", body={"model": "m", "mode": "train", "retain": True,
                                             "inputs": members(given[0])["inputs"]}, take={"C": "context"}))
    return steps + [step("POST /backward", body=body | {"retain": True}), step("POST /backward", body=body),
                    expect_state(module, EXACT)]


def round_of_replicas(momentum):
    """What tests/api/rounds.c sends at once: the batches, and the mean of four replicas by samples."""
    given = batches(5, 2, 7, 3)
    module, workers = replicas(momentum, given)
    begun = state(module)
    optimizer, weights = sgd(module), [len(b[0]) / 17 for b in given]
    for p, *each in zip(module.parameters(), *[w.parameters() for w in workers]):
        p.grad = sum(w * q.grad for w, q in zip(weights, each))
    optimizer.step()
    with torch.no_grad():
        for b, *each in zip(module.buffers(), *[w.buffers() for w in workers]):
            b.copy_(sum(w * q for w, q in zip(weights, each)).round() if b.dtype == torch.int64 else
                    sum(w * q for w, q in zip(weights, each)))
    return {"specification": model(module)[0]["body"], "before": begun, "batches": [members(b) for b in given],
            "after": state(module)}


# --- a GPT block ------------------------------------------------------------------------------------

WORDS, TIME, WIDTH, HEADS = 11, 6, 8, 2
HEAD = WIDTH // HEADS
MASK = torch.triu(torch.full((TIME, TIME), -1e9, dtype=torch.float64), 1)


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(WORDS, WIDTH)
        self.wpe = nn.Parameter(torch.randn(TIME, WIDTH) / 4)
        self.ln_1, self.ln_2, self.ln_f = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc, self.fc_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids):
        x = self.wte(ids) + self.wpe
        q, k, v = (t.reshape(-1, TIME, HEADS, HEAD).permute(0, 2, 1, 3) for t in self.attn(self.ln_1(x)).split(WIDTH, -1))
        scores = q @ k.transpose(-1, -2) / HEAD**0.5 + MASK
        x = x + self.proj((scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(-1, TIME, WIDTH))
        x = x + self.fc_proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))
        return self.head(self.ln_f(x)).transpose(1, 2)


def gpt_layers():
    def layer(op, name, *inputs, **attrs):
        return {"op": op, "name": name} | ({"inputs": list(inputs)} if inputs else {}) | attrs

    def heads(name, start):
        return [layer("slice", f"{name}_part", "attn", dim=2, start=start, end=start + WIDTH),
                layer("reshape", f"{name}_heads", shape=[TIME, HEADS, HEAD])]

    return [
        layer("embedding", "wte", "ids", num_embeddings=WORDS, embedding_dim=WIDTH),
        layer("parameter", "wpe", shape=[TIME, WIDTH], init="normal"),
        layer("add", "x_0", "wte", "wpe"),
        layer("layer_norm", "ln_1", normalized_shape=[WIDTH]),
        layer("linear", "attn", out_features=3 * WIDTH),
        *heads("q", 0), layer("permute", "q", dims=[0, 2, 1, 3]),
        *heads("k", WIDTH), layer("permute", "k", dims=[0, 2, 3, 1]),
        *heads("v", 2 * WIDTH), layer("permute", "v", dims=[0, 2, 1, 3]),
        layer("matmul", "products", "q", "k"),
        layer("constant", "scale", shape=[1], value=[HEAD**-0.5]),
        layer("mul", "scaled", "products", "scale"),
        layer("constant", "mask", shape=[TIME, TIME], value=MASK.flatten().tolist()),
        layer("add", "masked", "scaled", "mask"),
        layer("softmax", "weights", dim=-1),
        layer("matmul", "heads", "weights", "v"),
        layer("permute", "by_time", dims=[0, 2, 1, 3]),
        layer("reshape", "joined", shape=[TIME, WIDTH]),
        layer("linear", "proj", out_features=WIDTH),
        layer("add", "x_1", "x_0", "proj"),
        layer("layer_norm", "ln_2", normalized_shape=[WIDTH]),
        layer("linear", "fc", out_features=4 * WIDTH),
        layer("gelu", "act", approximate="tanh"),
        layer("linear", "fc_proj", out_features=WIDTH),
        layer("add", "x_2", "x_1", "fc_proj"),
        layer("layer_norm", "ln_f", normalized_shape=[WIDTH]),
        layer("linear", "head", out_features=WORDS, bias=False, tied={"weight": "wte.weight"}),
        layer("permute", "logits", dims=[0, 2, 1]),
    ]


def gpt():
    torch.manual_seed(5)
    module = Gpt().double()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    steps = [step("POST /models", status=201, body={
                 "name": "m", "dtype": "F64", "inputs": {"ids": {"shape": [TIME], "dtype": "I64"}},
                 "layers": gpt_layers(), "loss": {"op": "cross_entropy"}, "optimizer": {"op": "adam", "lr": 0.01}}),
             step("PUT /models/m/parameters", body={"parameters": state(module)})]
    for _ in range(20):
        ids, labels = torch.randint(WORDS, (3, TIME)), torch.randint(WORDS, (3, TIME))
        optimizer.zero_grad()
        loss = F.cross_entropy(module(ids), labels)
        loss.backward()
        optimizer.step()
        steps.append(step("POST /backward", 1e-9, answer={"loss": loss.item()}, body={
            "model": "m", "apply": True, "inputs": {"ids": ids.tolist()}, "targets": {"y": labels.tolist()}}))
    return steps + [expect_state(module, 1e-9)]


def write(name, cases):
    text = ",\n".join(f" {json.dumps(title)}: [\n" + ",\n".join(f"  {json.dumps(s)}" for s in steps) + "\n ]"
                      for title, steps in cases.items())
    (CASES / name).write_text("{\n" + text + "\n}\n")


def main():
    write("batch_norm_torch.json", {
        "as PyTorch: one step after another": steps_one_by_one(0.1),
        "as PyTorch: one step after another, without a momentum": steps_one_by_one(None),
        "as PyTorch: three batches in a step": accumulated(0.1, [1, 1, 1]),
        "as PyTorch: three batches in a step, with scales": accumulated(0.4, [0.5, -2, 1e3]),
        "as PyTorch: three batches in a step, without a momentum": accumulated(None, [1, 1, 1]),
        "as PyTorch: a frozen layer": frozen(),
        "as PyTorch: two pushes of one version": raced(0.1),
        "as PyTorch: two pushes of one version, without a momentum": raced(None),
        "as PyTorch: a context that is used twice": used_twice(),
    })
    write("gpt_torch.json", {"as PyTorch: a GPT block with a tied head": gpt()})
    rounds = pathlib.Path(__file__).parent / "rounds.json"
    rounds.write_text(json.dumps([round_of_replicas(0.1), round_of_replicas(None)]) + "\n")


if __name__ == "__main__":
    main()
