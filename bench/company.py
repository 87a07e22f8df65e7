"""Whether a forward in company answers the bytes that it does alone: many clients at a time, each with a row
of its own, against the same requests one after the other."""
import concurrent.futures

import numpy

import wire

TIMES = 3  # each client


def request(model, row):
    """Its seed is given, so that an answer holds nothing that is drawn."""
    return wire.safetensors({"model": model, "seed": 1}, {"inputs/x": row})


def same_bytes(port, model, features, clients):
    """The part of the answers in company that are, byte for byte, those of lone requests."""
    rows = numpy.random.default_rng(3).random((clients, 1, features), dtype=numpy.float32)
    requests = [request(model, row) for row in rows]

    def answer(body):
        return wire.call(port, "POST", "/forward", body, "safetensors")
    alone = [answer(body) for body in requests]
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        together = list(pool.map(answer, requests * TIMES))
    return sum(a == b for a, b in zip(alone * TIMES, together)) / len(together)
