"""What one would build instead: PyTorch behind FastAPI and uvicorn, with bodies of raw little-endian numbers.

A request holds x, float32, and behind it, where a loss is taken, y, int64. It is answered with the outputs,
with all gradients one behind the other, or, where they are applied, with the loss. One process; uvloop and
httptools. Every call exists twice: computed on the event loop, which is the faster for small requests, and
(below /threads) on a thread while the loop goes on reading. Prints "listening on 127.0.0.1:PORT"."""
import asyncio
import concurrent.futures
import socket
import threading
import warnings

import fastapi
import torch
import uvicorn

import torch_peer

warnings.filterwarnings("ignore", message="The given buffer is not writable")  # and nobody writes to it
app = fastapi.FastAPI()
threads = concurrent.futures.ThreadPoolExecutor(max_workers=2)
changing = threading.Lock()
loss_of = torch.nn.CrossEntropyLoss()
model = optimizer = widths = None


def raw(tensor):
    return memoryview(tensor.detach().contiguous().numpy()).cast("B")


def forward(body):
    x = torch.frombuffer(body, dtype=torch.float32).view(-1, widths[0])
    with torch.inference_mode():
        return raw(model(x))


def loss(body):
    rows = len(body) // (4 * widths[0] + 8)
    x = torch.frombuffer(body, dtype=torch.float32, count=rows * widths[0]).view(rows, widths[0])
    y = torch.frombuffer(body, dtype=torch.int64, offset=x.nbytes)
    return loss_of(model(x), y)


def gradients(body):
    parameters = tuple(model.parameters())
    return raw(torch.cat([g.flatten() for g in torch.autograd.grad(loss(body), parameters)]))


def apply(body):
    with changing:
        optimizer.zero_grad(set_to_none=True)
        value = loss(body)
        value.backward()
        optimizer.step()
        return raw(value)


def add_call(name, compute):
    @app.post(f"/{name}")
    async def on_loop(request: fastapi.Request):
        return fastapi.Response(compute(await request.body()))

    @app.post(f"/threads/{name}")
    async def on_thread(request: fastapi.Request):
        body = await request.body()
        return fastapi.Response(await asyncio.get_running_loop().run_in_executor(threads, compute, body))


for call in (forward, gradients, apply):
    add_call(call.__name__, call)


@app.get("/parameters")
async def pull():
    return fastapi.Response(raw(torch.cat([p.flatten() for p in model.parameters()])))


@app.put("/parameters")
async def push(request: fastapi.Request):
    flat = torch.frombuffer(await request.body(), dtype=torch.float32)
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), flat.split([p.numel() for p in model.parameters()])):
            parameter.copy_(part.view_as(parameter))
    return fastapi.Response()


@app.post("/model")
async def model_and_threads(layers: str, n_threads: int):
    global model, optimizer, widths
    torch.set_num_threads(n_threads)
    wanted = [int(width) for width in layers.split("-")]
    if wanted == widths:
        return fastapi.Response()
    widths = wanted
    model = torch_peer.perceptron(widths)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, fused=True)
    return fastapi.Response()


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="error", access_log=False,
                            timeout_keep_alive=3600)
    uvicorn.Server(config).run(sockets=[listener])
