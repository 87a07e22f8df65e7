/**
 * node --experimental-vm-modules page.js URL: the client as a page that came over plain HTTP has it, with the
 * web's platform that it uses, and nothing of Node's. Prints what it found as JSON.
 */
import { webcrypto } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import vm from 'node:vm';

const context = vm.createContext({
  AbortController, Headers, TextDecoder, TextEncoder, URL, URLSearchParams, clearTimeout, fetch, performance,
  setTimeout,
  crypto: { getRandomValues: (array) => webcrypto.getRandomValues(array) },
  service: process.argv[2],
});

const modules = new Map();

async function load(specifier, from) {
  const { href } = new URL(specifier, from.identifier ?? from);
  if (!modules.has(href)) {
    const source = await readFile(new URL(href), 'utf8');
    modules.set(href, new vm.SourceTextModule(source, { context, identifier: href }));
  }
  return modules.get(href);
}

const page = new vm.SourceTextModule(
  `import { Client, toNested } from '../../index.js';
   const gradd = new Client({ url: service });
   const { outputs } = await gradd.forward({ model: 'line', inputs: { x: [[1, 2]] } });
   const { applied_version } = await gradd.setParameters('line', { '0.bias': [1] }, { partial: true });
   export const found = JSON.stringify([toNested(outputs['0']), applied_version]);`,
  { context, identifier: import.meta.url },
);
await page.link(load);
await page.evaluate();
console.log(page.namespace.found);
