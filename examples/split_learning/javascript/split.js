/**
 * A network in two halves: the first layers here, the rest a model of the service. The service sees the output of
 * the first half, and the labels. It sees neither the inputs nor the first half's weights.
 */
import { toFloat32 } from '../../../clients/javascript/node.js';

export class SplitNetwork {
  /** `rest` is the service's model; its input is called h and has `width` features. */
  constructor(gradd, rest, first, width) {
    Object.assign(this, { gradd, rest, first, width });
  }

  #hidden(x) {
    const data = this.first.reduce((activations, layer) => layer.forward(activations), x);
    return { dtype: 'F32', shape: [data.length / this.width, this.width], data };
  }

  /** One step of both halves on a batch: the service's by its optimizer, ours by our own. Returns the loss. */
  async train(x, labels, { lr, momentum }) {
    const answer = await this.gradd.backward({
      model: this.rest,
      inputs: { h: this.#hidden(x) },
      targets: { y: labels },
      return: ['inputs'],
      apply: { lr },
    });
    // The answer was lost and asked for again: it has no tensors then. The service took the step, we cannot.
    if (answer.replayed) return answer.loss;
    let upstream = toFloat32(answer.input_gradients.h);
    for (const layer of [...this.first].reverse()) upstream = layer.backward(upstream);
    for (const layer of this.first) layer.step({ lr, momentum });
    return answer.loss;
  }

  /** The outputs of the whole network, [rows, classes]. */
  async outputs(x) {
    const { outputs } = await this.gradd.forward({ model: this.rest, inputs: { h: this.#hidden(x) } });
    return Object.values(outputs)[0];
  }
}
