/** A proxy that loses what it is told to lose. */
import { once } from 'node:events';
import http from 'node:http';

/**
 * What may happen to a request:
 *   pass            it is forwarded, and so is its answer
 *   lose-request    the connection ends before anything is forwarded
 *   lose-caller     it is forwarded; the connection ends at once
 *   lose-answer     ... when the answer is there
 *   cut-answer      ... when half of the answer's body has been sent
 *   stall           it is forwarded, and the answer kept back
 *   { status, headers, body }   it is not forwarded, and this is the answer
 */
export async function startProxy(target) {
  const faults = [];
  const seen = [];
  const server = http.createServer(async (request, response) => {
    const body = await readAll(request);
    const fault = faults.shift() ?? 'pass';
    const record = { method: request.method, path: request.url, headers: request.headers, body, fault };
    seen.push(record);
    if (fault === 'lose-request') return request.socket.destroy();
    if (typeof fault === 'object') {
      record.status = fault.status;
      return response.writeHead(fault.status, fault.headers).end(fault.body);
    }
    if (fault === 'lose-caller') request.socket.destroy();
    const answer = await forward(target, request, body);
    record.status = answer.status;
    if (fault === 'lose-answer') return request.socket.destroy();
    if (fault === 'stall' || fault === 'lose-caller') return undefined;
    response.writeHead(answer.status, answer.headers);
    if (fault !== 'cut-answer') return response.end(answer.body);
    return response.write(answer.body.subarray(0, answer.body.length / 2), () => request.socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** The requests so far: { method, path, headers, body, fault, status }. */
    seen,
    /** What is to happen to the next requests, one after the other; then they pass. */
    inject(...next) {
      faults.splice(0, faults.length, ...next);
      seen.length = 0;
    },
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

async function readAll(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function forward(target, { method, url, headers }, body) {
  const request = http.request(new URL(url, target), { method, headers, agent: false });
  request.end(body);
  const [answer] = await once(request, 'response');
  return { status: answer.statusCode, headers: answer.headers, body: await readAll(answer) };
}
