/** What a caller may get wrong: a TypeError that names the argument, before anything is sent. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Client } from 'gradd';

let sent = 0;
const nowhere = new Client({
  url: 'http://127.0.0.1:1',
  fetch: () => {
    sent += 1;
    throw new Error('this was to be refused before');
  },
});

async function refuses(call, words) {
  await assert.rejects(async () => call(), (error) => {
    assert.ok(error instanceof TypeError, `${error}`);
    assert.match(error.message, words);
    return true;
  });
  assert.equal(sent, 0);
}

test('a service is told by its url', async () => {
  await refuses(() => new Client('http://127.0.0.1:8080'), /argument of Client.*url/);
  await refuses(() => new Client(), /argument of Client/);
  await refuses(() => new Client({ url: 'nowhere' }), /^url: /);
  await refuses(() => new Client({}), /^url is a string/);
});

test('a token is one, and is not told', async () => {
  for (const token of ['the-secret\n', 'the secret', '', 'secr\u00e9t']) {
    await refuses(() => new Client({ url: 'http://127.0.0.1:1', token }), /^token: (?!.*secr)/);
  }
});

test('a GET has no document', async () => {
  await refuses(() => nowhere.request('GET', '/models', { a: 1 }), /^a GET has no document/);
});

test('a model and a context are named by a string', async () => {
  for (const call of ['describe', 'delete', 'parameters', 'gradients', 'clearGradients', 'optimizer', 'restore']) {
    await refuses(() => nowhere[call](undefined), /^model is a string/);
    await refuses(() => nowhere[call]({ model: 'm' }), /^model is a string/);
  }
  for (const call of ['context', 'deleteContext']) await refuses(() => nowhere[call](7), /^id is a string/);
});

test('requests are objects', async () => {
  await refuses(() => nowhere.create('m'), /^specification is an object/);
  await refuses(() => nowhere.patch('m'), /^change is an object/);
  await refuses(() => nowhere.restore('m', 3), /^request is an object/);
  await refuses(() => nowhere.step('m'), /^request is an object/);
  await refuses(() => nowhere.blend('m', null), /^request is an object/);
  await refuses(() => nowhere.forward('m', { x: [[1]] }), /^the request is an object/);
  await refuses(() => nowhere.backward(), /^the request is an object/);
  await refuses(() => nowhere.push('m'), /^contribution is an object/);
  await refuses(() => nowhere.setOptimizer('m', [1]), /^state is an object/);
  await refuses(() => nowhere.models(3), /^options is an object/);
});

test('tensors come by their names, and are told by them', async () => {
  const model = 'm';
  await refuses(() => nowhere.forward({ model, inputs: [[1, 2]] }), /^inputs takes tensors by their names.* an array/);
  await refuses(() => nowhere.forward({ model, inputs: Float32Array.of(1) }), /^inputs takes .*Float32Array/);
  await refuses(() => nowhere.backward({ model, inputs: {}, targets: null }), /^targets takes .*null/);
  await refuses(() => nowhere.backward({ model, inputs: {}, targets: { y: 'text' } }), /^targets\["y"\]: /);
  await refuses(() => nowhere.setParameters(model, [1]), /^parameters takes/);
  await refuses(() => nowhere.setParameters(model, { w: [[1], [2, 3]] }), /^parameters\["w"\]: /);
  await refuses(() => nowhere.push(model, { gradients: { w: {} } }), /^gradients\["w"\]: /);
});

test('names come in an array', async () => {
  await refuses(() => nowhere.parameters('m', { names: '0.weight' }), /^names is an array of names/);
  await refuses(() => nowhere.forward({ model: 'm', outputs: '0' }), /^outputs is an array of names/);
  await refuses(() => nowhere.backward({ model: 'm', return: ['inputs', 1] }), /^return is an array of names/);
});

test('nobody listening is told with the address, and to a page of another origin with the flag', async () => {
  const alone = new Client({ url: 'http://127.0.0.1:1', retries: 0 });
  await assert.rejects(alone.models(), { slug: 'unreachable', message: /no answer came from http:\/\/127\.0\.0\.1:1: / });
  globalThis.location = { origin: 'https://page.example' };
  try {
    await assert.rejects(alone.models(), { message: /--allowed-origins https:\/\/page\.example/ });
    globalThis.location = { origin: 'http://127.0.0.1:1' };
    await assert.rejects(alone.models(), ({ message }) => !message.includes('--allowed-origins'));
  } finally {
    delete globalThis.location;
  }
});
