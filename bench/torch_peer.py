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


OPTIMIZERS = {
    "sgd": [lambda p: torch.optim.SGD(p, lr=1e-4), lambda p: torch.optim.SGD(p, lr=1e-4, foreach=True), lambda p: torch.optim.SGD(p, lr=1e-4, fused=True)],
    "adam": [lambda p: torch.optim.Adam(p, lr=1e-4, fused=True)],
    "adamw": [lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True)],
    "rmsprop": [lambda p: torch.optim.RMSprop(p, lr=1e-4, foreach=True)],
    "adagrad": [lambda p: torch.optim.Adagrad(p, lr=1e-4, fused=True)],
}


def fastest(steps):
    """Of functions that do the same."""
    def seconds(step):
        step()
        begin = time.perf_counter()
        for _ in range(3):
            step()
        return time.perf_counter() - begin
    return min(steps, key=seconds) if len(steps) > 1 else steps[0]


def job(what, rows, widths):
    """A function that does it once."""
    model = perceptron(widths)
    if what in OPTIMIZERS:
        for parameter in model.parameters():
            parameter.grad = torch.rand_like(parameter)
        return fastest([make(model.parameters()).step for make in OPTIMIZERS[what]])
    x = torch.rand(rows, widths[0])
    y = torch.arange(rows) % widths[-1]
    loss_of = torch.nn.CrossEntropyLoss()

    def forward():
        with torch.inference_mode():
            model(x)

    def gradients():
        model.zero_grad(set_to_none=True)
        loss_of(model(x), y).backward()

    def apply_with(optimizer):
        def apply():
            gradients()
            optimizer.step()
        return apply

    if what == "apply":
        return fastest([apply_with(make(model.parameters())) for make in OPTIMIZERS["sgd"]])
    return {"forward": forward, "gradients": gradients}[what]


def main():
    last = step = None
    torch.manual_seed(1)
    for line in sys.stdin:
        count, *key = line.split()
        if key != last:
            last, step = key, None
            torch.set_num_threads(int(key[0]))
            step = job(key[1], int(key[2]), [int(width) for width in key[3].split("-")])
        step()
        begin = time.perf_counter()
        for _ in range(int(count)):
            step()
        print(f"{time.perf_counter() - begin:.9f}", flush=True)


if __name__ == "__main__":
    main()
