"""What a pass over a perceptron takes at least: floating-point operations, and bytes moved.

Bytes are those of every tensor that a layer reads or writes, with everything fused that can be: a layer reads
its input, its weights, and writes its output, the relu done. Backward reads both again with the gradient of
the output, and writes those of the weights and of the input (the first layer's aside); a step of SGD reads
weights and gradient and writes weights. They move at the rate of memory, or, where a step's tensors find room
in a cache all together, at that of the cache."""

FLOAT = 4
CACHE = 16 << 20


def operations(what, widths, rows):
    products = [before * after for before, after in zip(widths, widths[1:])]
    forward = 2 * rows * sum(products)
    return forward if what == "forward" else 2 * forward + 2 * rows * sum(products[1:])


def parameters(widths):
    return sum((before + 1) * after for before, after in zip(widths, widths[1:]))


def numbers_moved(what, widths, rows):
    inputs, outputs, weights = rows * sum(widths[:-1]), rows * sum(widths[1:]), parameters(widths)
    first = rows * widths[0]
    forward = inputs + weights + outputs
    if what == "forward":
        return forward
    backward = (inputs + weights + outputs) + weights + (inputs - first)
    return forward + backward + (3 * weights if what == "apply" else 0)


def bytes_moved(what, widths, rows):
    return FLOAT * numbers_moved(what, widths, rows)


def working_set(widths, rows):
    return FLOAT * (3 * parameters(widths) + 2 * rows * sum(widths))


def floor(what, widths, rows, roof):
    """Seconds, with what the machine does a second: (operations, bytes in memory, bytes in a cache)."""
    rate = roof[2] if working_set(widths, rows) <= CACHE else roof[1]
    return max(operations(what, widths, rows) / roof[0], bytes_moved(what, widths, rows) / rate)
