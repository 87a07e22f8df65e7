/** A daemon of the test's own: GRADD, or build/gradd of the project. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const PROJECT = fileURLToPath(new URL('../../../../', import.meta.url));

/** Starts it; { url, stop }. */
export async function startDaemon({ token, args = [] } = {}) {
  const program = resolve(PROJECT, process.env.GRADD ?? 'build/gradd');
  const env = { ...process.env };
  delete env.GRADD_TOKEN;
  if (token) env.GRADD_TOKEN = token;
  const flags = ['--listen', '127.0.0.1:0', '--log', 'off', ...args];
  const daemon = spawn(program, flags, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(daemon, 'exit');
  const url = await Promise.race([
    listeningAt(daemon.stdout),
    ended.then(([code]) => Promise.reject(new Error(`${program} ended with status ${code}`))),
  ]);
  return {
    url,
    async stop() {
      daemon.kill('SIGTERM');
      const [code] = await ended;
      if (code !== 0) throw new Error(`${program} ended with status ${code}`);
    },
  };
}

async function listeningAt(output) {
  for await (const line of createInterface(output)) {
    const [, url] = /^listening on (.*)$/.exec(line) ?? [];
    if (url) return url;
  }
  throw new Error('the daemon did not say where it listens');
}
