// A certified OpenID provider on loopback. Prints {"issuer", "control"} and serves until its standard input ends.
//
// CLIENTS  JSON list of clients, as OpenID Connect Registration writes them
// PEOPLE   JSON object: the claims of each login name (any password will do)
//
// control: GET /counts, how many requests each path has had; POST /rotate, sign with another key from now on.

import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const clients = JSON.parse(process.env.CLIENTS ?? '[]');
const people = JSON.parse(process.env.PEOPLE ?? '{}');
const counts = {};
const stored = new Map();

// What the provider remembers, so that it survives a change of keys.
class Memory {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { stored.set(this.key(id), payload); }
  async find(id) { return stored.get(this.key(id)); }
  async findByUid(uid) {
    return [...stored].find(([key, { uid: its }]) => key.startsWith('Session:') && its === uid)?.[1];
  }
  async findByUserCode() { return undefined; }
  async consume(id) { stored.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { stored.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const [key, payload] of stored) if (payload.grantId === grantId) stored.delete(key);
  }
}

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

function providerAt(issuer) {
  const provider = new Provider(issuer, {
    clients,
    adapter: Memory,
    jwks: { keys: [newKey()] },
    cookies: { keys: ['only for tests'] },
    claims: {
      openid: ['sub'],
      email: ['email', 'email_verified'],
      profile: ['name', 'given_name', 'family_name', 'picture'],
    },
    features: { devInteractions: { enabled: true } },
    pkce: { required: () => true },
    findAccount: (_, login) => people[login] && { accountId: login, claims: () => ({ sub: login, ...people[login] }) },
  });
  provider.use(async (context, next) => {
    if (context.path === '/auth' && !context.query.nonce) context.throw(400, 'a nonce is required here');
    await next();
  });
  return provider.callback();
}

const listening = (server) => new Promise((resolve) => {
  server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`));
});

let answer;
const issuer = await listening(createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  counts[pathname] = (counts[pathname] ?? 0) + 1;
  answer(request, response);
}));
answer = providerAt(issuer);

const control = await listening(createServer((request, response) => {
  if (request.url === '/rotate') answer = providerAt(issuer);
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify(counts));
}));

console.log(JSON.stringify({ issuer, control }));
process.stdin.on('end', () => process.exit(0)).resume();
