/** What a caller gave, before it is sent: a wrong argument is a TypeError that names it. */

function kindOf(value) {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return ArrayBuffer.isView(value) ? `a ${value.constructor.name}` : `a value of type ${typeof value}`;
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

export function checkString(argument, value) {
  if (typeof value === 'string') return value;
  throw new TypeError(`${argument} is a string, not ${kindOf(value)}`);
}

export function checkObject(argument, value, example) {
  if (isObject(value)) return value;
  throw new TypeError(`${argument} is an object such as ${example}, not ${kindOf(value)}`);
}

export function checkTensors(argument, value) {
  if (isObject(value) && !ArrayBuffer.isView(value.data)) return value;
  throw new TypeError(`${argument} takes tensors by their names, as { name: values }, not ${kindOf(value)}`);
}

export function checkNames(argument, value) {
  if (value === undefined || (Array.isArray(value) && value.every((name) => typeof name === 'string'))) return value;
  throw new TypeError(`${argument} is an array of names, not ${kindOf(value)}`);
}

/** Runs `make`, whose errors then begin with where the fault lies. */
export function named(place, make) {
  try {
    return make();
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) error.message = `${place}: ${error.message}`;
    throw error;
  }
}
