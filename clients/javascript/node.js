/** The client for Node, whose version 18 has Web Crypto but not as a global. */
import { webcrypto } from 'node:crypto';

import { useCrypto } from './lib/key.js';

useCrypto(webcrypto);

export * from './index.js';
