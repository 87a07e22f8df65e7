/** The example run as a person would, and the divided network against the whole. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Client, tensor, toFloat32 } from '../../../clients/javascript/node.js';
import { startDaemon } from '../../../clients/javascript/test/support/daemon.js';
import { Linear, Relu } from './layers.js';
import { SplitNetwork } from './split.js';

const daemon = await startDaemon();
after(() => daemon.stop());
const gradd = new Client({ url: daemon.url });

async function train(...flags) {
  const script = fileURLToPath(new URL('train.js', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, '--url', daemon.url, ...flags]);
  return Number(/^accuracy: ([0-9.]+)%/m.exec(stdout)[1]);
}

test('the digits are learnt in a quick run', async () => assert.ok((await train('--quick')) >= 85));

test('the digits are learnt to 95%', async () => assert.ok((await train()) >= 95));

test('the divided network learns what the whole one does', async () => {
  const [FEATURES, WIDTH, CLASSES, ROWS, STEPS] = [5, 7, 3, 8, 100];
  const descent = { lr: 0.05, momentum: 0.9 };
  const back = [{ op: 'linear', out_features: 6 }, { op: 'relu' }, { op: 'linear', out_features: CLASSES }];
  const trained = { loss: { op: 'cross_entropy' }, optimizer: { op: 'sgd', ...descent } };
  const front = [{ op: 'linear', out_features: WIDTH }, { op: 'relu' }];
  const layers = [...front, ...back];
  await gradd.create({ name: 'whole', seed: 1, inputs: { x: { shape: [FEATURES] } }, layers, ...trained });
  await gradd.create({ name: 'rest', seed: 1, inputs: { h: { shape: [WIDTH] } }, layers: back, ...trained });

  const { parameters } = await gradd.parameters('whole');
  const linear = new Linear(FEATURES, WIDTH, () => 0);
  linear.weight.set(parameters['0.weight'].data);
  linear.bias.set(parameters['0.bias'].data);
  const moved = ['0.weight', '0.bias', '2.weight', '2.bias'];
  const given = moved.map((name) => [name, parameters[name.replace(/^\d/, (n) => Number(n) + 2)]]);
  await gradd.setParameters('rest', Object.fromEntries(given));
  const split = new SplitNetwork(gradd, 'rest', [linear, new Relu()], WIDTH);

  const x = Float32Array.from({ length: ROWS * FEATURES }, (_, i) => Math.sin(1 + i * i));
  const y = BigInt64Array.from({ length: ROWS }, (_, i) => BigInt(i % CLASSES));
  const inputs = { x: tensor(x, { shape: [ROWS, FEATURES] }) };
  for (let step = 0; step < STEPS; step++) {
    const { loss } = await gradd.backward({ model: 'whole', inputs, targets: { y }, apply: true });
    assert.ok(Math.abs((await split.train(x, y, descent)) - loss) < 1e-4);
  }

  const [whole, rest] = [(await gradd.parameters('whole')).parameters, (await gradd.parameters('rest')).parameters];
  const pairs = [[whole['0.weight'].data, linear.weight], [whole['0.bias'].data, linear.bias]];
  for (const name of moved) {
    pairs.push([whole[name.replace(/^\d/, (n) => Number(n) + 2)].data, rest[name].data]);
  }
  for (const [a, b] of pairs) assert.ok(a.every((value, i) => Math.abs(value - b[i]) < 1e-4));
  const first = parameters['0.weight'].data;
  assert.ok(linear.weight.some((value, i) => Math.abs(value - first[i]) > 1e-2), 'nothing was learnt');
  const outputs = toFloat32(await split.outputs(x));
  const expected = toFloat32((await gradd.forward({ model: 'whole', inputs })).outputs['4']);
  assert.ok(outputs.every((value, i) => Math.abs(value - expected[i]) < 1e-4));
});
