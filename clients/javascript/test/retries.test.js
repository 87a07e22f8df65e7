/** Calls over a connection that loses requests and answers, and to a service that says "later". */
import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';

import { Client, GraddError, toNested } from 'gradd';

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
beforeEach(() => newLine(new Client({ url: daemon.url })));

const forward = (options) => gradd.forward({ model: 'line', inputs: { x: [[1, 2]] }, seed: 1 }, options);
const problem = (status, slug, headers = {}) => ({
  status,
  headers: { 'content-type': 'application/problem+json', ...headers },
  body: JSON.stringify({ type: `urn:gradd:problem:${slug}`, title: 'T', status, detail: 'D' }),
});

for (const fault of ['lose-request', 'lose-answer', 'cut-answer']) {
  test(`a read is repeated after ${fault}`, async () => {
    proxy.inject(fault, fault);
    assert.deepEqual(toNested((await forward()).outputs['0']), [[5]]);
    assert.equal(proxy.seen.length, 3);
    assert.ok(proxy.seen.every(({ headers }) => headers['idempotency-key'] === undefined));
  });
}

test('a change bears one key over all its attempts, and each change its own', async () => {
  proxy.inject('lose-request', problem(503, 'busy'), problem(429, 'too-many-requests'), problem(409, 'in-flight'));
  await gradd.backward({ model: 'line', ...BATCH, apply: true });
  const keys = proxy.seen.map(({ headers }) => headers['idempotency-key']);
  assert.equal(keys.length, 5);
  assert.equal(new Set(keys).size, 1);
  assert.match(keys[0], /^[\x21-\x7e]{16,128}$/);
  const bodies = new Set(proxy.seen.map(({ body }) => body.toString('latin1')));
  assert.equal(bodies.size, 1);
  await gradd.backward({ model: 'line', ...BATCH, apply: true });
  assert.notEqual(proxy.seen.at(-1).headers['idempotency-key'], keys[0]);
});

test('every call that changes something bears a key, and no other does', async () => {
  proxy.inject();
  const model = 'line';
  await gradd.patch(model, { optimizer: { lr: 0.1 } });
  await gradd.setParameters(model, { '0.bias': [1] }, { partial: true });
  await gradd.backward({ model, ...BATCH, apply: true });
  const answer = await gradd.backward({ model, ...BATCH });
  await gradd.push(model, { ...answer, accumulate: true });
  await gradd.gradients(model);
  await gradd.clearGradients(model);
  await gradd.backward({ model, ...BATCH, accumulate: true });
  await gradd.step({ model });
  await gradd.blend(model, { from: model, tau: 0.5 });
  const { context } = await gradd.forward({ model, inputs: BATCH.inputs, retain: true });
  await gradd.context(context);
  await gradd.deleteContext(context);
  await gradd.setOptimizer(model, await gradd.optimizer(model));
  await gradd.parameters(model);
  await gradd.backward({ model, ...BATCH });
  await gradd.describe(model);
  await gradd.models();
  await gradd.delete(model);
  await gradd.create(LINE);
  const keyed = ({ method, path, body }) =>
    method === 'PATCH' || method === 'PUT' || method === 'DELETE' || path === '/step' ||
    (method === 'POST' && path.startsWith('/models')) || (path === '/backward' && /apply|accumulate/.test(body));
  for (const request of proxy.seen) {
    const { method, path, headers } = request;
    assert.equal(headers['idempotency-key'] !== undefined, keyed(request), `${method} ${path}`);
  }
});

test('a key of the caller is taken', async () => {
  proxy.inject();
  await gradd.backward({ model: 'line', ...BATCH, apply: true }, { idempotencyKey: 'batch-7' });
  assert.equal(proxy.seen[0].headers['idempotency-key'], 'batch-7');
});

test('waits as long as Retry-After says, in seconds or as a date', async () => {
  const begin = Date.now();
  proxy.inject(problem(503, 'busy', { 'retry-after': '1' }));
  await forward();
  assert.ok(Date.now() - begin >= 990);
  proxy.inject(problem(503, 'busy', { 'retry-after': new Date(Date.now() + 7200_000).toUTCString() }));
  await assert.rejects(forward(), ({ retryAfterMs }) => retryAfterMs > 3600_000 && retryAfterMs <= 7200_000);
});

test('does not wait for an hour', async () => {
  proxy.inject(problem(503, 'busy', { 'retry-after': '3600' }));
  await assert.rejects(forward(), { status: 503, slug: 'busy', retryAfterMs: 3600_000 });
  assert.equal(proxy.seen.length, 1);
});

test('gives up after as many attempts as it was told, and tells why', async () => {
  proxy.inject(problem(503, 'busy'), problem(503, 'out-of-memory'), problem(429, 'too-many-requests'));
  await assert.rejects(forward({ retries: 2 }), { status: 429, slug: 'too-many-requests', detail: 'D' });
  assert.equal(proxy.seen.length, 3);
  proxy.inject('lose-request', 'lose-request');
  await assert.rejects(forward({ retries: 1 }), (error) => {
    assert.ok(error instanceof GraddError);
    assert.deepEqual([error.status, error.slug], [0, 'unreachable']);
    assert.ok(error.cause);
    return true;
  });
  assert.equal(proxy.seen.length, 2);
  await assert.rejects(new Client({ url: 'http://127.0.0.1:1', retries: 0 }).health(), { slug: 'unreachable' });
});

test('an error that stays is not tried again', async () => {
  const lasting = { malformed: 400, 'not-found': 404, 'name-taken': 409, stale: 412, internal: 500 };
  for (const [slug, status] of Object.entries(lasting)) {
    proxy.inject(problem(status, slug));
    await assert.rejects(forward(), { status, slug });
    assert.equal(proxy.seen.length, 1);
  }
});

test('says what it can of an error that is not the service\'s own', async () => {
  proxy.inject({ status: 502, headers: {}, body: '<html>' });
  await assert.rejects(forward(), { status: 502, slug: 'unknown', detail: 'the answer was 502 Bad Gateway' });
  proxy.inject({ status: 502, headers: {}, body: 'null' });
  await assert.rejects(forward(), { status: 502, slug: 'unknown' });
});

test('a redirection is no answer', async () => {
  proxy.inject({ status: 302, headers: { location: '/models' }, body: '' });
  await assert.rejects(gradd.create({ ...LINE, name: 'other' }), { status: 302, slug: 'unknown' });
  assert.equal(proxy.seen.length, 1);
});

test('no key is sent again that the service may have forgotten', async (context) => {
  let now = 0;
  context.mock.method(performance, 'now', () => now);
  const fetch = async () => {
    now += 100_000;
    throw new TypeError('the network is down');
  };
  const client = new Client({ url: 'http://somewhere.example', fetch });
  await assert.rejects(client.step({ model: 'line' }), { slug: 'unreachable' });
  assert.equal(now, 300_000);
});

test('an attempt without an answer in time is repeated', async () => {
  proxy.inject('stall');
  assert.deepEqual(toNested((await forward({ timeoutMs: 500 })).outputs['0']), [[5]]);
  assert.equal(proxy.seen.length, 2);
  proxy.inject('stall');
  await assert.rejects(forward({ timeoutMs: 50, retries: 0 }), { status: 0, slug: 'timeout' });
});

test('a signal ends a call in an attempt, in a wait, and before it begins', async () => {
  const why = new Error('enough');
  const endedBy = (controller) => {
    setTimeout(() => controller.abort(why), 50);
    return controller.signal;
  };
  proxy.inject('stall');
  await assert.rejects(forward({ signal: endedBy(new AbortController()) }), why);
  proxy.inject(problem(503, 'busy', { 'retry-after': '30' }));
  await assert.rejects(forward({ signal: endedBy(new AbortController()) }), why);
  assert.equal(proxy.seen.length, 1);
  proxy.inject();
  await assert.rejects(forward({ signal: AbortSignal.abort(why) }), why);
  assert.equal(proxy.seen.length, 0);
});

test('a signal that serves many calls collects no listeners', async () => {
  const { signal } = new AbortController();
  let listeners = 0;
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...given) => (listeners++, addEventListener.apply(signal, given));
  signal.removeEventListener = (...given) => (listeners--, removeEventListener.apply(signal, given));
  proxy.inject(problem(503, 'busy'));
  await forward({ signal });
  assert.equal(listeners, 0);
});

test('"not ready" is an answer', async () => {
  proxy.inject(problem(503, 'busy'));
  assert.equal(await gradd.ready(), false);
  assert.equal(await gradd.ready(), true);
});

test('uses the fetch that it is given', async () => {
  const asked = [];
  const fetch = async (url, { method, body }) => {
    asked.push([method, String(url), body]);
    return new Response('{"deleted": "line"}', { headers: { 'content-type': 'application/json' } });
  };
  const client = new Client({ url: 'https://somewhere.example/gradd/', fetch });
  assert.deepEqual(await client.delete('line'), { deleted: 'line' });
  assert.deepEqual(asked, [['DELETE', 'https://somewhere.example/gradd/models/line', undefined]]);
});
