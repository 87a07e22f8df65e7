/** The client has all that the service has: the endpoints of api/request/routes.def, and in its types their members. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import { Client, writeSafetensors } from 'gradd';

const file = (path) => readFile(new URL(path, import.meta.url), 'utf8');

/** [METHOD PATH, members] of each row. */
async function routes() {
  const text = (await file('../../../api/request/routes.def')).replace(/\/\*.*?\*\//gs, '');
  return text.split('API_ROUTE(').slice(1).map((row) => {
    const strings = [...row.replace(/"\s+"/g, '').matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, string]) => string);
    const [method, path, , , members] = strings; // between them those of the query, and those required
    return [`${method} ${path}`, members.split(' ').filter(Boolean)];
  });
}

/** Each method with arguments that it takes. */
const CALLS = {
  create: [{}], models: [], describe: ['NAME'], patch: ['NAME', {}], delete: ['NAME'], restore: ['NAME'],
  forward: [{}], backward: [{ apply: true }], step: [{}], parameters: ['NAME'], setParameters: ['NAME', {}],
  blend: ['NAME', {}], push: ['NAME', {}], gradients: ['NAME'], clearGradients: ['NAME'], optimizer: ['NAME'],
  setOptimizer: ['NAME', {}], contexts: [], context: ['NAME'], deleteContext: ['NAME'], ops: [], health: [],
  ready: [], metrics: [], openapi: [], request: ['GET', '/models'],
};

test('each endpoint has a method', async () => {
  const seen = new Set();
  const gradd = new Client({
    url: 'http://service',
    fetch: async (url, { method, headers }) => {
      seen.add(`${method} ${new URL(url).pathname.replace('/NAME', '/{}')}`);
      const asked = headers.get('accept').includes('safetensors') && method !== 'GET' ? 'safetensors' : 'json';
      const body = headers.get('accept') === 'application/safetensors' ? writeSafetensors({}) : '{}';
      return new Response(body, { headers: { 'content-type': `application/${asked}` } });
    },
  });
  const methods = Object.getOwnPropertyNames(Client.prototype).filter((name) => name !== 'constructor');
  assert.deepEqual(methods.sort(), Object.keys(CALLS).sort());
  for (const [name, given] of Object.entries(CALLS)) await gradd[name](...given);
  const known = (await routes()).map(([route]) => route);
  assert.ok(known.length > 20);
  assert.deepEqual([...seen].sort(), known.sort());
});

test('each member of a request is in the types', async () => {
  const types = await file('../index.d.ts');
  for (const [route, members] of await routes()) {
    for (const member of members) assert.match(types, new RegExp(`\\b${member}\\??:`), `${member} of ${route}`);
  }
});

test('each method is in the types and on the page', async () => {
  const [types, page] = [await file('../index.d.ts'), await file('../README.md')];
  for (const name of Object.keys(CALLS)) {
    assert.match(types, new RegExp(`^  ${name}[(<]`, 'm'), name);
    assert.ok(page.includes(`\`${name}(`), name);
  }
});
