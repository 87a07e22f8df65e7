/** Workers that wait for each other. */
import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';

import { Client, toNested } from 'gradd';

import { startDaemon } from './support/daemon.js';
import { BATCH, newLine } from './support/models.js';
import { startProxy } from './support/proxy.js';

const daemon = await startDaemon();
const proxy = await startProxy(daemon.url);
after(async () => {
  await proxy.stop();
  await daemon.stop();
});
const gradd = new Client({ url: proxy.url });
const direct = new Client({ url: daemon.url });
const newRound = (changes) =>
  newLine(direct, { aggregation: { mode: 'sync', workers: 2, timeout_ms: 60_000, ...changes } });
beforeEach(() => {
  proxy.inject();
  return newRound();
});

/** A worker's whole batch, or one row of it: rows have the gradients [1, 2] * 2 * 1 and [3, 4] * 2 * -1. */
const contribute = (worker, { client = direct, row, ...more } = {}) => {
  const part = (rows) => (row === undefined ? rows : [rows[row]]);
  const [inputs, targets] = [{ x: part(BATCH.inputs.x) }, { y: part(BATCH.targets.y) }];
  return client.backward({ model: 'line', inputs, targets, apply: true, worker, ...more });
};
const weights = async () => toNested((await direct.parameters('line')).parameters['0.weight']);

const moment = () => new Promise((resolve) => setTimeout(resolve, 5));

async function waiting(count) {
  for (;;) {
    const { round } = await direct.describe('line');
    if (round.workers.length === count) return round;
    await moment();
  }
}

test('a round is applied once, when all are in, in any order', async () => {
  for (const [first, second] of [['a', 'b'], ['b', 'a']]) {
    await newRound();
    const row = { a: 0, b: 1 };
    const early = contribute(first, { row: row[first] });
    const { workers, missing, version } = await waiting(1);
    assert.deepEqual([workers, missing, version], [[first], 1, 1]);
    const answers = [await contribute(second, { row: row[second] }), await early];
    for (const { applied_version, round } of answers) {
      assert.equal(applied_version, 2);
      assert.deepEqual(round, { contributions: 2, samples: 2 });
    }
    assert.deepEqual(await weights(), [[2, 3]]);
  }
});

test('a push takes part in it, weighted by its samples', async () => {
  const answer = await direct.backward({ model: 'line', ...BATCH });
  const answers = await Promise.all([
    gradd.push('line', { ...answer, samples: 6, worker: '1' }),
    contribute('2', { row: 0 }),
  ]);
  assert.deepEqual(answers.map(({ round }) => round.samples), [7, 7]);
});

for (const [what, faults] of Object.entries({
  'whose connection broke while it waited': ['lose-caller'],
  'whose answer was lost': ['lose-answer', 'cut-answer'],
})) {
  test(`a worker ${what} has contributed once`, async () => {
    proxy.inject(...faults);
    const a = contribute('a', { client: gradd });
    await waiting(1);
    while (faults[0] === 'lose-caller' && proxy.seen.length < 2) await moment();
    const b = await contribute('b');
    assert.deepEqual([b.applied_version, b.round], [2, { contributions: 2, samples: 4 }]);
    const again = await a;
    assert.equal(again.replayed, true);
    assert.deepEqual([again.applied_version, again.round], [2, b.round]);
    assert.equal((await direct.describe('line')).version, 2);
  });
}

test('what a round refuses', async () => {
  const refused = (promise, status, slug) => assert.rejects(promise, { status, slug });
  await refused(contribute(undefined), 422, 'invalid-value');
  await refused(contribute('a', { apply: { lr: 1 } }), 409, 'not-in-a-round');
  const overtaken = refused(contribute('a'), 412, 'stale');
  await waiting(1);
  await refused(contribute('a'), 409, 'round-twice');
  await direct.setParameters('line', { '0.bias': [1] }, { partial: true });
  await overtaken;
});

test('a round without a quorum fails for all, with one it goes on', async () => {
  await newRound({ workers: 3, quorum: 2, timeout_ms: 100 });
  await assert.rejects(contribute('a'), { status: 409, slug: 'round-failed' });
  const answers = await Promise.all([contribute('a'), contribute('b')]);
  assert.deepEqual(answers.map(({ round }) => round.contributions), [2, 2]);
});
