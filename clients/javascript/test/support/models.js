/** y = w x + b with w = [1, 2], b = 0: numbers that a person can check. */
export const LINE = {
  name: 'line',
  seed: 1,
  inputs: { x: { shape: [2] } },
  layers: [{ op: 'linear', out_features: 1 }],
  loss: { op: 'mse' },
  optimizer: { op: 'sgd', lr: 0.5 },
};

/** Replaces the model by a new one at version 1. Its gradient at BATCH is [-2, -2] and 0, its loss 1. */
export async function newLine(client, changes = {}) {
  const name = changes.name ?? LINE.name;
  if ((await client.models()).some((model) => model.name === name)) await client.delete(name);
  await client.create({ ...LINE, ...changes });
  return client.setParameters(name, { '0.weight': [[1, 2]], '0.bias': [0] });
}

export const BATCH = { inputs: { x: [[1, 2], [3, 4]] }, targets: { y: [[4], [12]] } };
