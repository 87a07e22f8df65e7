/** Every call against a real daemon. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Client, GraddError, tensor, toFloat32, toNested } from 'gradd';

import { startDaemon } from './support/daemon.js';
import { BATCH, LINE, newLine } from './support/models.js';

const daemon = await startDaemon();
after(() => daemon.stop());
const gradd = new Client({ url: daemon.url });

const nested = (tensors) => Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, toNested(t)]));

test('creates, lists, describes, changes and deletes a model', async () => {
  const made = await gradd.create(LINE);
  assert.equal(made.version, 0);
  assert.deepEqual(made.parameters.map(({ name, shape }) => [name, shape]), [['0.weight', [1, 2]], ['0.bias', [1]]]);
  assert.deepEqual(await gradd.describe('line'), made);
  assert.deepEqual(await gradd.models(), [{ name: 'line', incarnation: made.incarnation, version: 0 }]);
  const changed = await gradd.patch('line', { optimizer: { momentum: 0.5 } });
  assert.deepEqual(changed.specification.optimizer, { op: 'sgd', lr: 0.5, momentum: 0.5 });
  assert.deepEqual(await gradd.delete('line'), { deleted: 'line' });
  assert.deepEqual(await gradd.models(), []);
});

test('runs a model forward', async () => {
  await newLine(gradd);
  const request = { model: 'line', inputs: { x: [[1, 2], [3, 4]] }, outputs: ['x', '0'], seed: 5 };
  const answer = await gradd.forward(request);
  assert.equal(answer.model, 'line');
  assert.match(answer.incarnation, /^[0-9a-f]+$/);
  assert.deepEqual([answer.version, answer.seed], [1, 5]);
  assert.deepEqual(answer.outputs['0'], { dtype: 'F32', shape: [2, 1], data: Float32Array.of(5, 11) });
  assert.deepEqual(toNested(answer.outputs.x), [[1, 2], [3, 4]]);
});

test('takes every dtype, and answers the one that is asked for', async () => {
  await newLine(gradd);
  for (const dtype of ['F32', 'F64', 'F16', 'BF16', 'U8', 'I32', 'I64']) {
    const { outputs } = await gradd.forward({ model: 'line', inputs: { x: tensor([[1, 2]], { dtype }) } });
    assert.deepEqual(toNested(outputs['0']), [[5]], dtype);
  }
  for (const dtype of ['F32', 'F64', 'F16', 'BF16']) {
    const { outputs } = await gradd.forward({ model: 'line', inputs: { x: [[0.1, 0.2]] }, dtype });
    assert.equal(outputs['0'].dtype, dtype);
    assert.ok(Math.abs(toFloat32(outputs['0'])[0] - 0.5) < 0.01);
  }
});

test('keeps the numbers of a nested array as a float64 model needs them', async () => {
  await newLine(gradd, { name: 'double', dtype: 'F64' });
  const { outputs } = await gradd.forward({ model: 'double', inputs: { x: [[0.1, 0]] } });
  assert.deepEqual(outputs['0'], { dtype: 'F64', shape: [1, 1], data: Float64Array.of(0.1) });
});

test('takes ids as numbers', async () => {
  const layers = [{ op: 'embedding', num_embeddings: 3, embedding_dim: 1 }];
  await gradd.create({ name: 'ids', inputs: { i: { shape: [], dtype: 'I64' } }, layers });
  await gradd.setParameters('ids', { '0.weight': [[10], [20], [30]] });
  const { outputs } = await gradd.forward({ model: 'ids', inputs: { i: [2, 0] } });
  assert.deepEqual(toNested(outputs['0']), [[30], [10]]);
});

test('returns gradients of all kinds', async () => {
  await newLine(gradd);
  const kinds = ['parameters', 'inputs', 'nodes', 'outputs'];
  const answer = await gradd.backward({ model: 'line', ...BATCH, return: kinds });
  assert.deepEqual([answer.loss, answer.losses, answer.samples], [1, [1], 2]);
  assert.deepEqual(nested(answer.gradients), { '0.weight': [[-2, -2]], '0.bias': [0] });
  assert.deepEqual(nested(answer.input_gradients), { x: [[1, 2], [-1, -2]] });
  assert.deepEqual(nested(answer.node_gradients), { x: [[1, 2], [-1, -2]], 0: [[1], [-1]] });
  assert.deepEqual(nested(answer.outputs), { 0: [[5], [11]] });
});

test('applies a gradient', async () => {
  await newLine(gradd);
  const answer = await gradd.backward({ model: 'line', ...BATCH, apply: true });
  assert.deepEqual([answer.version, answer.applied_version], [1, 2]);
  assert.equal(answer.gradients, undefined);
  const pulled = await gradd.parameters('line');
  assert.equal(pulled.version, 2);
  assert.equal(pulled.incarnation, answer.incarnation);
  assert.deepEqual(nested(pulled.parameters), { '0.weight': [[2, 3]], '0.bias': [0] });
  assert.equal((await gradd.backward({ model: 'line', ...BATCH, apply: { lr: 0 } })).applied_version, 3);
});

test('accumulates gradients and steps', async () => {
  await newLine(gradd);
  await gradd.backward({ model: 'line', ...BATCH, accumulate: true });
  const { accumulated } = await gradd.backward({ model: 'line', ...BATCH, accumulate: { scale: 3 } });
  assert.deepEqual(accumulated, { contributions: 2, scale: 4 });
  const stepped = await gradd.step({ model: 'line', mean: true, lr: 1 });
  assert.deepEqual([stepped.applied_version, stepped.contributions], [2, 2]);
  assert.deepEqual(nested((await gradd.parameters('line')).parameters), { '0.weight': [[3, 4]], '0.bias': [0] });
});

test('keeps a pass, lists it, and goes back through it', async () => {
  await newLine(gradd);
  const kept = await gradd.forward({ model: 'line', inputs: BATCH.inputs, retain: true });
  const other = await gradd.forward({ model: 'line', inputs: BATCH.inputs, retain: true });
  const listed = await gradd.contexts();
  assert.deepEqual(listed.map(({ context }) => context).sort(), [kept.context, other.context].sort());
  assert.equal((await gradd.context(kept.context)).seed, kept.seed);
  const upstream = { 0: [[1], [-1]] };
  const { input_gradients } = await gradd.backward({ context: kept.context, upstream, return: ['inputs'] });
  assert.deepEqual(nested(input_gradients), { x: [[1, 2], [-1, -2]] });
  assert.deepEqual(await gradd.deleteContext(other.context), { deleted: other.context });
  assert.deepEqual(await gradd.contexts(), []);
});

test('sends a model along with the request', async () => {
  const model = { inputs: { x: { shape: [2] } }, layers: [{ op: 'linear', out_features: 1 }] };
  const parameters = { '0.weight': [[1, 2]], '0.bias': [0] };
  const { outputs } = await gradd.forward({ model, parameters, inputs: { x: [[3, 4]] } });
  assert.deepEqual(nested(outputs), { 0: [[11]] });
});

test('pulls and sets parameters, all or some', async () => {
  const { applied_version } = await newLine(gradd);
  assert.equal(applied_version, 1);
  await gradd.setParameters('line', { '0.bias': [0.5] }, { partial: true });
  const pulled = await gradd.parameters('line', { dtype: 'F16' });
  assert.equal(pulled.parameters['0.weight'].dtype, 'F16');
  assert.deepEqual(nested(pulled.parameters), { '0.weight': [[1, 2]], '0.bias': [0.5] });
  assert.equal((await gradd.setParameters('line', pulled.parameters)).applied_version, 3);
  const missing = { slug: 'invalid-value', pointer: '/parameters/0.weight' };
  await assert.rejects(gradd.setParameters('line', { '0.bias': [0.5] }), missing);
});

test('pulls and sets the state of the optimizer', async () => {
  await newLine(gradd, { optimizer: { op: 'sgd', lr: 0.5, momentum: 0.5 } });
  await gradd.backward({ model: 'line', ...BATCH, apply: true });
  const kept = await gradd.optimizer('line');
  assert.deepEqual([kept.op, kept.steps], ['sgd', 1]);
  assert.deepEqual(nested(kept.state), { 'momentum_buffer.0.weight': [[-2, -2]], 'momentum_buffer.0.bias': [0] });
  await newLine(gradd, { optimizer: { op: 'sgd', lr: 0.5, momentum: 0.5 } });
  assert.equal((await gradd.setOptimizer('line', kept)).steps, 1);
  assert.deepEqual((await gradd.optimizer('line')).state, kept.state);
});

test('pulls and sets the state of an optimizer that only a part has stepped', async () => {
  await newLine(gradd, { optimizer: { op: 'sgd', lr: 0.5, momentum: 0.5 } });
  const { incarnation, version } = await gradd.parameters('line');
  await gradd.push('line', { incarnation, version, gradients: { '0.bias': [1] } });
  const kept = await gradd.optimizer('line');
  assert.deepEqual([kept.steps, kept.fresh], [{ '0.weight': 0, '0.bias': 1 }, ['momentum_buffer.0.weight']]);
  await gradd.setOptimizer('line', { steps: 3, state: kept.state });
  const other = await gradd.optimizer('line');
  assert.deepEqual([other.steps, other.fresh], [3, undefined]);
  await gradd.setOptimizer('line', kept);
  const again = await gradd.optimizer('line');
  assert.deepEqual([again.steps, again.fresh, again.state], [kept.steps, kept.fresh, kept.state]);
});

test('pulls and sets the state of an optimizer that has none but its count', async () => {
  await newLine(gradd);
  const kept = await gradd.optimizer('line');
  assert.deepEqual(kept.state, {});
  assert.equal((await gradd.setOptimizer('line', { ...kept, steps: 7 })).steps, 7);
});

test('tells of the operators and the service', async () => {
  const { operators, losses, optimizers } = await gradd.ops();
  assert.ok(operators.some(({ op }) => op === 'linear'));
  assert.ok(losses.some(({ op }) => op === 'cross_entropy'));
  assert.ok(optimizers.some(({ op }) => op === 'adamw'));
  assert.equal((await gradd.health()).status, 'ok');
  assert.equal(await gradd.ready(), true);
});

test('throws problems as they are', async () => {
  await newLine(gradd);
  await assert.rejects(gradd.forward({ model: 'line', inputs: { x: [[1, 2, 3]] } }), (error) => {
    assert.ok(error instanceof GraddError && error instanceof Error);
    assert.equal(error.name, 'GraddError');
    assert.equal(error.status, 422);
    assert.equal(error.slug, 'shape-mismatch');
    assert.equal(error.title, 'A tensor has the wrong shape');
    assert.equal(error.pointer, '/inputs/x');
    assert.deepEqual(error.expected, [null, 2]);
    assert.deepEqual(error.actual, [1, 3]);
    assert.match(error.requestId, /^[0-9a-f]+$/);
    assert.equal(error.message, 'shape-mismatch: "x" has the wrong shape (at /inputs/x) (expected [null,2], actual [1,3])');
    return true;
  });
  await assert.rejects(gradd.create(LINE), { status: 409, slug: 'name-taken' });
  await assert.rejects(gradd.step({ model: 'line' }), { status: 409, slug: 'nothing-accumulated' });
  await assert.rejects(gradd.describe('nobody'), { status: 404, slug: 'not-found' });
  await assert.rejects(gradd.forward({ model: 'line', inputs: { x: [[NaN, 1]] } }), { slug: 'not-finite' });
  await assert.rejects(gradd.forward({ model: 'line', modle: true }), { slug: 'unknown-member', pointer: '/modle' });
});

test('quotes names in paths', async () => {
  await assert.rejects(gradd.describe('a/parameters'), { status: 404 });
  await assert.rejects(gradd.describe('a b?c#d'), { status: 404 });
});

test('refuses what is no tensor before anything is sent', async () => {
  const offline = new Client({ url: 'http://127.0.0.1:1', retries: 0 });
  assert.throws(() => offline.forward({ model: 'line', inputs: { x: [[1, 2], [3]] } }), TypeError);
});

test('shows its token', async () => {
  const guarded = await startDaemon({ token: 'secret' });
  try {
    const at = (token) => new Client({ url: `${guarded.url}/`, token });
    assert.deepEqual(await at('secret').models(), []);
    await assert.rejects(at('wrong').models(), { status: 401, slug: 'unauthorized' });
    await assert.rejects(at(undefined).models(), { status: 401 });
    assert.equal(await at(undefined).ready(), true);
  } finally {
    await guarded.stop();
  }
});

test('works with what a page in a browser has', async () => {
  await newLine(gradd);
  const page = fileURLToPath(new URL('support/page.js', import.meta.url));
  const run = promisify(execFile)(process.execPath, ['--experimental-vm-modules', page, daemon.url]);
  assert.deepEqual(JSON.parse((await run).stdout), [[[5]], 2]);
});

test('the example in README.md learns', async () => {
  await newLine(gradd);
  await gradd.delete('line');
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  const [, example] = /^```js\n(.*?)^```/ms.exec(readme);
  const code = example.replace('http://127.0.0.1:8080', daemon.url);
  const cwd = fileURLToPath(new URL('..', import.meta.url)); // where 'gradd' is this package
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', code], { cwd });
  const losses = stdout.match(/^[0-9.e-]+$/gm).map(Number);
  assert.equal(losses.length, 10);
  assert.ok(losses.at(-1) < losses[0] / 100);
});
