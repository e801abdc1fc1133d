// Fastify with @fastify/jwt, @fastify/redis and @fastify/rate-limit. A session is a key in Redis, and every check asks
// for it; a refresh token is random, kept as a digest and taken once.
import { createHash, randomBytes } from 'node:crypto'
import Fastify from 'fastify'
import jwt from '@fastify/jwt'
import rateLimit from '@fastify/rate-limit'
import redisPlugin from '@fastify/redis'
import bcrypt from 'bcrypt'

const { PORT, REDIS_URL, SECRET, HASH_ROUNDS = '10', LOGIN_LIMIT = '5' } = process.env
const ACCESS_LASTS = 6 * 3600
const SESSION_LASTS = 7 * 24 * 3600

const app = Fastify({ logger: false })
await app.register(redisPlugin, { url: REDIS_URL })
await app.register(jwt, { secret: SECRET, sign: { algorithm: 'HS256', expiresIn: ACCESS_LASTS } })
await app.register(rateLimit, { global: false, redis: app.redis })

const digest = (token) => createHash('sha256').update(token).digest('base64url')
const random = () => randomBytes(24).toString('base64url')
const credentials = {
  body: {
    type: 'object',
    required: ['email', 'password'],
    properties: { email: { type: 'string' }, password: { type: 'string' } }
  }
}

async function signedIn (user, sid) {
  const refreshToken = random()
  await app.redis.pipeline()
    .set(`session:${sid}`, user.id, 'EX', SESSION_LASTS)
    .set(`refresh:${digest(refreshToken)}`, `${sid} ${user.id} ${user.email}`, 'EX', SESSION_LASTS)
    .exec()
  const accessToken = app.jwt.sign({ sub: user.id, sid, email: user.email })
  return { accessToken, tokenType: 'Bearer', expiresIn: ACCESS_LASTS, refreshToken }
}

async function authenticated (request, reply) {
  try {
    await request.jwtVerify()
  } catch {
    return reply.code(401).send({ error: 'INVALID_TOKEN' })
  }
  if (!await app.redis.exists(`session:${request.user.sid}`)) {
    return reply.code(401).send({ error: 'TOKEN_REVOKED' })
  }
}

app.post('/api/auth/register', { schema: credentials }, async (request, reply) => {
  const { email, password } = request.body
  const user = { id: random(), email, password: await bcrypt.hash(password, Number(HASH_ROUNDS)) }
  if (!await app.redis.setnx(`email:${email}`, user.id)) return reply.code(409).send({ error: 'EMAIL_EXISTS' })
  await app.redis.hset(`user:${user.id}`, { ...user, firstName: 'Ada', lastName: 'Lovelace', roles: 'user' })
  return reply.code(201).send({ id: user.id })
})

const limited = { rateLimit: { max: Number(LOGIN_LIMIT), timeWindow: '15 minutes' } }
app.post('/api/auth/login', { schema: credentials, config: limited }, async (request, reply) => {
  const id = await app.redis.get(`email:${request.body.email}`)
  const user = id && await app.redis.hgetall(`user:${id}`)
  if (!user || !await bcrypt.compare(request.body.password, user.password)) {
    return reply.code(401).send({ error: 'INVALID_CREDENTIALS' })
  }
  return signedIn(user, random())
})

app.post('/api/auth/refresh', async (request, reply) => {
  const kept = await app.redis.getdel(`refresh:${digest(String(request.body.refreshToken))}`)
  if (!kept) return reply.code(401).send({ error: 'INVALID_REFRESH_TOKEN' })
  const [sid, id, email] = kept.split(' ')
  if (!await app.redis.exists(`session:${sid}`)) return reply.code(401).send({ error: 'SESSION_ENDED' })
  return signedIn({ id, email }, sid)
})

app.post('/api/auth/logout', { onRequest: authenticated }, async (request, reply) => {
  await app.redis.del(`session:${request.user.sid}`)
  return reply.code(204).send()
})

app.get('/api/auth/verify', { onRequest: authenticated }, async (request) => {
  return { active: true, sub: request.user.sub, sid: request.user.sid, expiresAt: request.user.exp }
})

app.get('/api/auth/me', { onRequest: authenticated }, async (request) => {
  const { password, ...user } = await app.redis.hgetall(`user:${request.user.sub}`)
  return { user }
})

app.get('/ready', async () => ({ status: await app.redis.ping() }))

await app.listen({ host: '127.0.0.1', port: Number(PORT) })
process.on('SIGTERM', () => process.exit(0))
