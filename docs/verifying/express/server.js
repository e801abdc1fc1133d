// An API that checks Gatepost's access tokens itself, with Express and jose: npm ci && npm start
import express from "express";
import { createRemoteJWKSet, customFetch, errors, jwtVerify } from "jose";

const issuer = process.env.GATEPOST_ISSUER ?? "http://localhost:8000"; // JWT_ISSUER there
const audience = process.env.GATEPOST_AUDIENCE ?? issuer; // JWT_AUDIENCE there
const jwks = process.env.GATEPOST_JWKS ?? `${issuer}/.well-known/jwks.json`;

const FRESH = 300; // seconds that the keys may be kept
const COOL_DOWN = 30; // seconds between two fetches, whatever `kid` strangers invent

let lastKeys; // jose throws its copy away when it is too old; while no newer one is to be had, this one serves
const keys = createRemoteJWKSet(new URL(jwks), {
  cacheMaxAge: FRESH * 1000,
  cooldownDuration: COOL_DOWN * 1000,
  timeoutDuration: 5000,
  [customFetch]: async (url, options) => {
    try {
      const answer = await fetch(url, options);
      if (answer.status !== 200) throw new Error(`the keys: HTTP ${answer.status}`);
      lastKeys = await answer.json();
    } catch (error) {
      if (!lastKeys) throw error;
    }
    return Response.json(lastKeys);
  },
});

/** The claims of a Gatepost access token; throws an error of jose. */
async function claimsOf(token) {
  const { payload } = await jwtVerify(token, keys, {
    issuer,
    audience,
    typ: "at+jwt",
    algorithms: ["ES256", "RS256", "EdDSA"], // and the key's own alone: never HS256, never none
    clockTolerance: 10, // seconds
    requiredClaims: ["sub", "sid", "jti", "iat", "exp"],
  });
  if (payload.type !== "access") throw new errors.JWTInvalid("not an access token");
  return payload;
}

const KEYS_AWAY = new Set(["ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID", "ERR_JOSE_GENERIC"]);
const isRefusal = (error) => error instanceof errors.JOSEError && !KEYS_AWAY.has(error.code);

/** Lets in who has a token, and if a role is named who has that; `req.user` are the claims. */
const signedIn = (role) => async (req, res, next) => {
  const [, token] = /^Bearer +(\S+)$/i.exec(req.get("Authorization") ?? "") ?? [];
  if (!token) return res.set("WWW-Authenticate", "Bearer").status(401).json({ error: "no token" });
  try {
    req.user = await claimsOf(token);
  } catch (error) {
    if (isRefusal(error)) {
      return res.set("WWW-Authenticate", 'Bearer error="invalid_token"').status(401).json({ error: "invalid token" });
    }
    return res.set("Retry-After", "1").status(503).json({ error: "the keys cannot be fetched" });
  }
  if (role && !req.user.roles.includes(role)) return res.status(403).json({ error: `needs the role ${role}` });
  next();
};

const app = express();
app.get("/orders", signedIn(), (req, res) => res.json({ user: req.user.sub, orders: [] }));
app.get("/reports", signedIn("admin"), (req, res) => res.json({ user: req.user.sub, reports: [] }));
app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1");
