/** Every changing call has one effect, however often its answer is lost. */
import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';

import { Client, toNested } from 'gradd';

import { startDaemon } from './support/daemon.js';
import { BATCH, LINE, newLine } from './support/models.js';
import { startProxy } from './support/proxy.js';

const daemon = await startDaemon();
const proxy = await startProxy(daemon.url);
after(async () => {
  await proxy.stop();
  await daemon.stop();
});
const gradd = new Client({ url: proxy.url });
const direct = new Client({ url: daemon.url });
beforeEach(() => newLine(direct));

/** Each call, and the version that it leaves the model at if it has had one effect. */
const CHANGES = {
  'a backward that applies': [2, () => gradd.backward({ model: 'line', ...BATCH, apply: true })],
  'a push': [2, async () => gradd.push('line', await direct.backward({ model: 'line', ...BATCH }))],
  'a step': [2, async () => {
    await direct.backward({ model: 'line', ...BATCH, accumulate: true });
    return gradd.step({ model: 'line' });
  }],
  'parameters set': [2, () => gradd.setParameters('line', { '0.bias': [1] }, { partial: true })],
  'a blend': [2, async () => {
    await newLine(direct, { name: 'target' });
    return gradd.blend('line', { from: 'target', tau: 0.5 });
  }],
  'a change of hyper-parameters': [1, () => gradd.patch('line', { optimizer: { lr: 0.1 } })],
  'an optimizer\'s state set': [1, async () => gradd.setOptimizer('line', await direct.optimizer('line'))],
};
for (const [what, [version, call]] of Object.entries(CHANGES)) {
  test(`${what} counts once, and is answered alike`, async () => {
    proxy.inject('lose-answer', 'lose-answer');
    const answer = await call();
    assert.equal(proxy.seen.length, 3);
    assert.equal(new Set(proxy.seen.map(({ headers }) => headers['idempotency-key'])).size, 1);
    assert.equal(answer.replayed, true);
    assert.equal((await direct.describe('line')).version, version);
    if (version === 2) assert.equal(answer.applied_version, 2);
  });
}

test('a gradient that is accumulated counts once', async () => {
  proxy.inject('cut-answer', 'lose-answer');
  const { accumulated } = await gradd.backward({ model: 'line', ...BATCH, accumulate: true });
  assert.deepEqual(accumulated, { contributions: 1, scale: 1 });
  assert.equal((await direct.gradients('line')).contributions, 1);
});

test('a model is created once, and deleted once', async () => {
  await direct.delete('line');
  proxy.inject('lose-answer');
  const made = await gradd.create(LINE);
  assert.equal(made.incarnation, (await direct.describe('line')).incarnation);
  proxy.inject('lose-answer');
  assert.equal((await gradd.delete('line')).deleted, 'line');
  assert.ok((await direct.models()).every(({ name }) => name !== 'line'));
});

test('a buffer is cleared and a context dropped once', async () => {
  await direct.backward({ model: 'line', ...BATCH, accumulate: true });
  proxy.inject('lose-answer');
  assert.equal((await gradd.clearGradients('line')).cleared, 1);
  const { context } = await direct.forward({ model: 'line', inputs: BATCH.inputs, retain: true });
  proxy.inject('lose-answer');
  assert.equal((await gradd.deleteContext(context)).deleted, context);
});

test('an answer that comes again has no tensors', async () => {
  proxy.inject('lose-answer');
  const answer = await gradd.backward({ model: 'line', ...BATCH, apply: true, return: ['parameters'] });
  assert.equal(answer.replayed, true);
  assert.equal(answer.loss, 1);
  assert.equal(answer.gradients, undefined);
});

test('attempts that meet in the service have one effect', async () => {
  proxy.inject('stall', 'lose-answer', 'stall');
  const answer = await gradd.backward({ model: 'line', ...BATCH, apply: true }, { timeoutMs: 500 });
  assert.equal(answer.applied_version, 2);
  assert.equal((await direct.describe('line')).version, 2);
});

test('a training over a bad line makes the same weights', async () => {
  await newLine(direct, { name: 'calm' });
  proxy.inject(
    'pass', 'lose-request', 'pass', 'lose-answer', 'lose-answer', 'cut-answer', 'pass', 'lose-request', 'cut-answer',
  );
  for (let step = 0; step < 6; step++) {
    await direct.backward({ model: 'calm', ...BATCH, apply: { lr: 0.01 } });
    await gradd.backward({ model: 'line', ...BATCH, apply: { lr: 0.01 } });
  }
  const weights = async (model) => toNested((await direct.parameters(model)).parameters['0.weight']);
  assert.ok(proxy.seen.length > 6);
  assert.equal((await direct.describe('line')).version, 7);
  assert.deepEqual(await weights('line'), await weights('calm'));
});

test('a key that bore another request is refused', async () => {
  await gradd.step({ model: 'line' }, { idempotencyKey: 'k' }).catch(() => {});
  await gradd.setParameters('line', { '0.bias': [1] }, { partial: true, idempotencyKey: 'k' });
  await assert.rejects(
    gradd.setParameters('line', { '0.bias': [2] }, { partial: true, idempotencyKey: 'k' }),
    { status: 422, slug: 'key-reused' },
  );
});
