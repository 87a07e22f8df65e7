/**
 * The layers that stay with the client, in plain JavaScript. Matrices are Float32Arrays in row-major order.
 * forward keeps what backward needs; backward takes the gradient of the loss with respect to the layer's
 * output and returns that with respect to its input.
 */

/** y = x Wᵀ + b, with W [out, in]; dx = dy W, dW = dyᵀ x, db = Σ dy. Descends with momentum. */
export class Linear {
  constructor(inFeatures, outFeatures, random) {
    const bound = 1 / Math.sqrt(inFeatures);
    const draw = () => (2 * random() - 1) * bound;
    this.in = inFeatures;
    this.out = outFeatures;
    this.weight = Float32Array.from({ length: outFeatures * inFeatures }, draw);
    this.bias = Float32Array.from({ length: outFeatures }, draw);
    this.d_weight = new Float32Array(this.weight.length);
    this.d_bias = new Float32Array(this.bias.length);
    this.velocities = [new Float32Array(this.weight.length), new Float32Array(this.bias.length)];
  }

  forward(x) {
    const { in: width, out, weight, bias } = this;
    const rows = x.length / width;
    const y = new Float32Array(rows * out);
    for (let row = 0; row < rows; row++) {
      for (let o = 0; o < out; o++) {
        let sum = bias[o];
        for (let i = 0; i < width; i++) sum += x[row * width + i] * weight[o * width + i];
        y[row * out + o] = sum;
      }
    }
    this.x = x;
    return y;
  }

  backward(d_y) {
    const { in: width, out, weight, x, d_weight, d_bias } = this;
    const d_x = new Float32Array(x.length);
    d_weight.fill(0);
    d_bias.fill(0);
    for (let row = 0; row < x.length / width; row++) {
      for (let o = 0; o < out; o++) {
        const d = d_y[row * out + o];
        d_bias[o] += d;
        for (let i = 0; i < width; i++) {
          d_weight[o * width + i] += d * x[row * width + i];
          d_x[row * width + i] += d * weight[o * width + i];
        }
      }
    }
    return d_x;
  }

  step({ lr, momentum }) {
    const gradients = [this.d_weight, this.d_bias];
    for (const [n, parameters] of [this.weight, this.bias].entries()) {
      const velocity = this.velocities[n];
      for (let i = 0; i < parameters.length; i++) {
        velocity[i] = momentum * velocity[i] + gradients[n][i];
        parameters[i] -= lr * velocity[i];
      }
    }
  }
}

/** y = max(x, 0); dx = dy where x > 0, else 0. */
export class Relu {
  forward(x) {
    this.x = x;
    return x.map((value) => Math.max(value, 0));
  }

  backward(d_y) {
    return d_y.map((d, i) => (this.x[i] > 0 ? d : 0));
  }

  step() {}
}
