/** Many clients at one model: pulls that know what they have, changes that know what they change, pushes. */
import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';

import { Client, tensor, toNested } from 'gradd';

import { startDaemon } from './support/daemon.js';
import { BATCH, newLine } from './support/models.js';
import { startProxy } from './support/proxy.js';

const daemon = await startDaemon();
const proxy = await startProxy(daemon.url);
after(async () => {
  await proxy.stop();
  await daemon.stop();
});
let gradd;
let line;
beforeEach(async () => {
  gradd = new Client({ url: proxy.url });
  line = await newLine(gradd);
  proxy.inject();
});

const nested = (tensors) => Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, toNested(t)]));
const parameters = async (model = 'line') => nested((await gradd.parameters(model)).parameters);
const statuses = () => proxy.seen.map(({ status }) => status);
const train = (more) => gradd.backward({ model: 'line', ...BATCH, apply: true, ...more });

test('pulls again only what has changed', async () => {
  const first = await gradd.parameters('line');
  assert.deepEqual(await gradd.parameters('line'), first);
  assert.deepEqual(statuses(), [200, 304]);
  await train();
  assert.equal((await gradd.parameters('line')).version, first.version + 1);
  assert.deepEqual(statuses(), [200, 304, 200, 200]);
});

test('what was pulled is the puller\'s own', async () => {
  const first = await gradd.parameters('line');
  first.parameters['0.weight'].data.fill(7);
  const second = await gradd.parameters('line');
  assert.deepEqual(toNested(second.parameters['0.weight']), [[1, 2]]);
  second.parameters['0.weight'].data.fill(7);
  assert.deepEqual(await parameters(), { '0.weight': [[1, 2]], '0.bias': [0] });
  assert.deepEqual(statuses(), [200, 304, 304]);
});

test('keeps pulls of other names, dtypes and models apart', async () => {
  await newLine(gradd, { name: 'other' });
  await gradd.setParameters('other', { '0.bias': [3] }, { partial: true });
  proxy.inject();
  for (let round = 0; round < 2; round++) {
    const some = await gradd.parameters('line', { names: ['0.bias'] });
    assert.deepEqual(nested(some.parameters), { '0.bias': [0] });
    const half = await gradd.parameters('line', { dtype: 'BF16' });
    assert.equal(half.parameters['0.weight'].dtype, 'BF16');
    assert.deepEqual(half.parameters['0.weight'].data, Uint16Array.of(0x3f80, 0x4000));
    assert.deepEqual(await parameters('other'), { '0.weight': [[1, 2]], '0.bias': [3] });
  }
  assert.deepEqual(statuses(), [200, 200, 200, 304, 304, 304]);
  await assert.rejects(gradd.parameters('line', { names: ['0.wait'] }), { status: 422 });
});

test('a model of the same name is another one', async () => {
  const old = await gradd.parameters('line');
  await newLine(gradd);
  proxy.inject();
  const { incarnation, version } = await gradd.parameters('line');
  assert.equal(version, old.version);
  assert.notEqual(incarnation, old.incarnation);
  assert.deepEqual(statuses(), [200]);
});

test('keeps no more bytes than it may', async () => {
  const small = new Client({ url: proxy.url, cacheBytes: 0 });
  await small.parameters('line');
  await small.parameters('line');
  assert.deepEqual(statuses(), [200, 200]);
  const headers = { accept: 'application/safetensors' };
  const answer = await fetch(`${daemon.url}/models/line/parameters`, { headers });
  const { byteLength: length } = await answer.arrayBuffer();
  const one = new Client({ url: proxy.url, cacheBytes: length });
  proxy.inject();
  await one.parameters('line');
  await one.parameters('line', { dtype: 'F16' });
  await one.parameters('line', { dtype: 'F16' });
  await one.parameters('line');
  assert.deepEqual(statuses(), [200, 200, 304, 200]);
});

test('changes only the version that it was told to', async () => {
  const seen = await gradd.parameters('line');
  const { applied_version } = await gradd.setParameters('line', { '0.bias': [1] }, { partial: true, ifMatch: seen });
  assert.equal(applied_version, 2);
  const stale = { status: 412, slug: 'stale' };
  await assert.rejects(gradd.setParameters('line', seen.parameters, { ifMatch: seen }), stale);
  await assert.rejects(gradd.backward({ model: 'line', ...BATCH, apply: true }, { ifMatch: seen }), stale);
  await assert.rejects(gradd.patch('line', { optimizer: { lr: 1 } }, { ifMatch: seen }), stale);
  await assert.rejects(gradd.delete('line', { ifMatch: seen }), stale);
  const now = await gradd.describe('line');
  assert.equal(now.version, 2);
  assert.deepEqual(await gradd.delete('line', { ifMatch: `"${now.incarnation}-2"` }), { deleted: 'line' });
});

test('pushes a gradient, as a backward answered it', async () => {
  const answer = await gradd.backward({ model: 'line', ...BATCH, return: ['parameters', 'inputs', 'outputs'] });
  const pushed = await gradd.push('line', { ...answer, worker: '7' });
  assert.deepEqual([pushed.version, pushed.applied_version, pushed.staleness], [1, 2, 0]);
  assert.deepEqual(await parameters(), { '0.weight': [[2, 3]], '0.bias': [0] });
});

test('pushes some gradients of any dtype, at a rate of its own', async () => {
  const { incarnation } = line;
  const gradients = { '0.weight': tensor([[2, 4]], { dtype: 'BF16' }) };
  await gradd.push('line', { incarnation, version: 1, gradients, apply: { lr: 1 } });
  assert.deepEqual(await parameters(), { '0.weight': [[-1, -2]], '0.bias': [0] });
  const refused = (changes, expected) =>
    assert.rejects(gradd.push('line', { incarnation, version: 1, gradients, ...changes }), expected);
  await refused({ version: 9 }, { status: 422, pointer: '/version' });
  await refused({ incarnation: '0' }, { status: 412, slug: 'stale' });
  await refused({ acumulate: true }, { status: 422, slug: 'unknown-member' });
  await refused({ gradients: { '0.bias': [NaN] } }, { status: 422, slug: 'not-finite' });
});

test('bounds how stale a gradient may be', async () => {
  const answer = await gradd.backward({ model: 'line', ...BATCH });
  await train();
  await train();
  const stale = { status: 412, slug: 'stale' };
  await assert.rejects(gradd.push('line', { ...answer, max_staleness: 1 }), stale);
  assert.equal((await gradd.push('line', { ...answer, max_staleness: 2 })).staleness, 2);
  await gradd.patch('line', { max_staleness: 0 });
  await assert.rejects(gradd.push('line', { ...answer, max_staleness: 9 }), stale);
});

test('accumulates what is pushed, shows it and clears it', async () => {
  const answer = await gradd.backward({ model: 'line', ...BATCH });
  await gradd.push('line', { ...answer, accumulate: true });
  const { accumulated } = await gradd.push('line', { ...answer, accumulate: { scale: 3 } });
  assert.deepEqual(accumulated, { contributions: 2, scale: 4 });
  const sum = await gradd.gradients('line');
  assert.deepEqual([sum.contributions, sum.scale, sum.oldest_version], [2, 4, 1]);
  assert.deepEqual(nested(sum.gradients), { '0.weight': [[-8, -8]], '0.bias': [0] });
  assert.equal((await gradd.gradients('line', { dtype: 'F16' })).gradients['0.bias'].dtype, 'F16');
  assert.equal((await gradd.clearGradients('line')).cleared, 2);
  await assert.rejects(gradd.gradients('line'), { status: 409, slug: 'nothing-accumulated' });
});

test('blends in another model', async () => {
  await newLine(gradd, { name: 'target' });
  await gradd.setParameters('line', { '0.weight': [[5, 2]], '0.bias': [8] });
  const answer = await gradd.blend('target', { from: 'line', tau: 0.25 });
  assert.deepEqual([answer.applied_version, answer.from_version], [2, 2]);
  assert.deepEqual(await parameters('target'), { '0.weight': [[2, 2]], '0.bias': [2] });
});
