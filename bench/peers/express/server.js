// Express as the usual tutorial writes it: jsonwebtoken for both tokens, a blacklist in Redis for those that were logged
// out, the current refresh tokens in Redis, bcrypt, express-rate-limit. Tokens in cookies too, as tutorials have them.
import { randomUUID } from 'node:crypto'
import bcrypt from 'bcrypt'
import cookieParser from 'cookie-parser'
import express from 'express'
import { rateLimit } from 'express-rate-limit'
import Redis from 'ioredis'
import jwt from 'jsonwebtoken'
import { RedisStore } from 'rate-limit-redis'

const { PORT, REDIS_URL, SECRET, HASH_ROUNDS = '10', LOGIN_LIMIT = '5' } = process.env
const ACCESS_LASTS = 6 * 3600
const REFRESH_LASTS = 7 * 24 * 3600
const REFRESH_SECRET = `${SECRET} for refresh tokens`

const redis = new Redis(REDIS_URL)
const app = express()
app.use(express.json())
app.use(cookieParser())

const limiter = rateLimit({
  windowMs: 15 * 60 * 1000,
  limit: Number(LOGIN_LIMIT),
  standardHeaders: true,
  legacyHeaders: false,
  store: new RedisStore({ sendCommand: (command, ...args) => redis.call(command, ...args) })
})

async function signedIn (res, user) {
  const jti = randomUUID()
  const accessToken = jwt.sign({ sub: user.id, jti, email: user.email }, SECRET, { expiresIn: ACCESS_LASTS })
  const refreshToken = jwt.sign({ sub: user.id, jti, email: user.email }, REFRESH_SECRET, { expiresIn: REFRESH_LASTS })
  await redis.set(`refresh:${user.id}:${jti}`, refreshToken, 'EX', REFRESH_LASTS)
  res.cookie('refreshToken', refreshToken, { httpOnly: true, sameSite: 'lax', maxAge: REFRESH_LASTS * 1000 })
  res.json({ accessToken, tokenType: 'Bearer', expiresIn: ACCESS_LASTS, refreshToken })
}

async function authenticate (req, res, next) {
  const token = req.headers.authorization?.split(' ')[1] ?? req.cookies.accessToken
  if (!token) return res.status(401).json({ error: 'NO_TOKEN' })
  try {
    req.user = jwt.verify(token, SECRET)
  } catch {
    return res.status(401).json({ error: 'INVALID_TOKEN' })
  }
  if (await redis.get(`blacklist:${req.user.jti}`)) return res.status(401).json({ error: 'TOKEN_REVOKED' })
  next()
}

app.post('/api/auth/register', async (req, res) => {
  const { email, password } = req.body
  if (await redis.get(`email:${email}`)) return res.status(409).json({ error: 'EMAIL_EXISTS' })
  const user = { id: randomUUID(), email, password: await bcrypt.hash(password, Number(HASH_ROUNDS)) }
  await redis.set(`email:${email}`, user.id)
  await redis.hset(`user:${user.id}`, { ...user, firstName: 'Ada', lastName: 'Lovelace', roles: 'user' })
  res.status(201).json({ id: user.id })
})

app.post('/api/auth/login', limiter, async (req, res) => {
  const id = await redis.get(`email:${req.body.email}`)
  const user = id && await redis.hgetall(`user:${id}`)
  if (!user || !await bcrypt.compare(req.body.password, user.password)) {
    return res.status(401).json({ error: 'INVALID_CREDENTIALS' })
  }
  await signedIn(res, user)
})

app.post('/api/auth/refresh', async (req, res) => {
  const token = req.body.refreshToken ?? req.cookies.refreshToken
  let claims
  try {
    claims = jwt.verify(token, REFRESH_SECRET)
  } catch {
    return res.status(401).json({ error: 'INVALID_REFRESH_TOKEN' })
  }
  const key = `refresh:${claims.sub}:${claims.jti}`
  if (await redis.get(key) !== token) return res.status(401).json({ error: 'INVALID_REFRESH_TOKEN' })
  await redis.del(key)
  await signedIn(res, { id: claims.sub, email: claims.email })
})

app.post('/api/auth/logout', authenticate, async (req, res) => {
  const { sub, jti, exp } = req.user
  await redis.set(`blacklist:${jti}`, '1', 'EX', Math.max(1, exp - Math.floor(Date.now() / 1000)))
  await redis.del(`refresh:${sub}:${jti}`)
  res.clearCookie('refreshToken')
  res.sendStatus(204)
})

app.get('/api/auth/verify', authenticate, (req, res) => {
  res.json({ active: true, sub: req.user.sub, jti: req.user.jti, expiresAt: req.user.exp })
})

app.get('/api/auth/me', authenticate, async (req, res) => {
  const { password, ...user } = await redis.hgetall(`user:${req.user.sub}`)
  res.json({ user })
})

app.get('/ready', async (req, res) => { res.json({ status: await redis.ping() }) })

app.listen(Number(PORT), '127.0.0.1')
process.on('SIGTERM', () => process.exit(0))
