"""PyTorch in this process: the jobs of core.c, and its protocol (support/job.h). Float32, and the faster of
an optimizer's implementations."""
import sys
import time

import torch


def perceptron(widths):
    layers = []
    for before, after in zip(widths, widths[1:]):
        layer = torch.nn.Linear(before, after)
        torch.nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        torch.nn.init.zeros_(layer.bias)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


# Where PyTorch has several implementations, all are tried.
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, [{}, {"foreach": True}, {"fused": True}]),
    "adam": (torch.optim.Adam, [{"foreach": True}, {"fused": True}]),
    "adamw": (torch.optim.AdamW, [{"foreach": True}, {"fused": True}]),
    "rmsprop": (torch.optim.RMSprop, [{}, {"foreach": True}]),
    "adagrad": (torch.optim.Adagrad, [{"foreach": True}, {"fused": True}]),
}


def fastest_optimizer(name, model):
    """`model` has gradients."""
    def seconds(optimizer):
        optimizer.step()
        begin = time.perf_counter()
        for _ in range(3):
            optimizer.step()
        return time.perf_counter() - begin
    make, options = OPTIMIZERS[name]
    best = min(options, key=lambda option: seconds(make(model.parameters(), lr=1e-4, **option)))
    return make(model.parameters(), lr=1e-4, **best)


def job(what, rows, widths):
    """A function that does it once."""
    model = perceptron(widths)
    if what in OPTIMIZERS:
        for parameter in model.parameters():
            parameter.grad = torch.rand_like(parameter)
        return fastest_optimizer(what, model).step
    x = torch.rand(rows, widths[0])
    y = torch.arange(rows) % widths[-1]
    loss_of = torch.nn.CrossEntropyLoss()

    def forward():
        with torch.inference_mode():
            model(x)

    def gradients():
        model.zero_grad(set_to_none=True)
        loss_of(model(x), y).backward()

    gradients()
    optimizer = fastest_optimizer("sgd", model)

    def apply():
        gradients()
        optimizer.step()

    return {"forward": forward, "gradients": gradients, "apply": apply}[what]


def main():
    last = step = None
    torch.manual_seed(1)
    for line in sys.stdin:
        count, threads, *key = line.split()
        torch.set_num_threads(int(threads))
        if key != last:
            last, step = key, None
            step = job(key[0], int(key[1]), [int(width) for width in key[2].split("-")])
        step()
        begin = time.perf_counter()
        for _ in range(int(count)):
            step()
        print(f"{time.perf_counter() - begin:.9f}", flush=True)


if __name__ == "__main__":
    main()
