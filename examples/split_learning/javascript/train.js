/**
 * node train.js [--url URL] [--quick]: learns to read handwritten digits with a network whose first layers
 * are here and whose others are in the service. Ends with status 1 if it reads fewer than 95% of the test images
 * right. --quick trains for 4 epochs and requires 85%.
 */
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

import { Client, readSafetensors } from '../../../clients/javascript/node.js';
import { Linear, Relu } from './layers.js';
import { SplitNetwork } from './split.js';

const { values: given } = parseArgs({
  options: {
    url: { type: 'string', default: 'http://127.0.0.1:8080' },
    quick: { type: 'boolean', default: false },
  },
});
const [EPOCHS, NEEDED] = given.quick ? [4, 85] : [20, 95];
const [PIXELS, HIDDEN, CLASSES, TEST, BATCH] = [64, 96, 10, 360, 32];
const DESCENT = { lr: 0.05, momentum: 0.9 };

const REST = {
  name: 'digits-rest',
  seed: 42,
  inputs: { h: { shape: [HIDDEN] } },
  layers: [{ op: 'linear', out_features: 32 }, { op: 'relu' }, { op: 'linear', out_features: CLASSES }],
  loss: { op: 'cross_entropy' },
  optimizer: { op: 'sgd', ...DESCENT },
};

/** Mulberry32: every run draws alike. */
function generator(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffle(items, random) {
  for (let i = items.length - 1; i > 0; i--) {
    const k = Math.floor(random() * (i + 1));
    [items[i], items[k]] = [items[k], items[i]];
  }
  return items;
}

/** The images and labels at `places`, pixels from 0 to 1. */
function take({ x, y }, places) {
  const pixels = new Float32Array(places.length * PIXELS);
  for (const [row, place] of places.entries()) {
    for (let i = 0; i < PIXELS; i++) pixels[row * PIXELS + i] = x.data[place * PIXELS + i] / 16;
  }
  return { pixels, labels: BigInt64Array.from(places, (place) => y.data[place]) };
}

async function accuracy(network, { pixels, labels }) {
  const { data } = await network.outputs(pixels);
  let right = 0;
  for (const [row, label] of labels.entries()) {
    const scores = data.subarray(row * CLASSES, (row + 1) * CLASSES);
    if (scores.indexOf(Math.max(...scores)) === Number(label)) right++;
  }
  return (100 * right) / labels.length;
}

const gradd = new Client({ url: given.url, token: process.env.GRADD_TOKEN });
const random = generator(2);
const digits = readSafetensors(await readFile(new URL('../../data/digits.safetensors', import.meta.url))).tensors;
const order = shuffle([...digits.y.data.keys()], random);
const test = take(digits, order.slice(-TEST));
const training = order.slice(0, -TEST);

if ((await gradd.models()).some(({ name }) => name === REST.name)) await gradd.delete(REST.name);
await gradd.create(REST);
const network = new SplitNetwork(gradd, REST.name, [new Linear(PIXELS, HIDDEN, random), new Relu()], HIDDEN);

for (let epoch = 1; epoch <= EPOCHS; epoch++) {
  const lr = DESCENT.lr * (1 - (epoch - 1) / EPOCHS);
  shuffle(training, random);
  let loss = 0;
  for (let at = 0; at < training.length; at += BATCH) {
    const { pixels, labels } = take(digits, training.slice(at, at + BATCH));
    loss += labels.length * (await network.train(pixels, labels, { ...DESCENT, lr }));
  }
  console.log(`epoch ${epoch} of ${EPOCHS}: loss ${(loss / training.length).toFixed(4)}`);
}

const reached = await accuracy(network, test);
console.log(`accuracy: ${reached.toFixed(1)}% of ${TEST} images that it had not seen`);
if (reached < NEEDED) process.exitCode = 1;
