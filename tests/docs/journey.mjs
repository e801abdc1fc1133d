// The journey of a single-page app with gatepost-client, at a real service. Prints "done" when all of it went well.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const [service, library] = process.argv.slice(2);
const { createAuth, Problem } = await import(pathToFileURL(library));

// A browser: one cookie jar, an origin, and a record of what was asked.
const jar = new Map();
const seen = [];
let instead; // an answer to give in place of the service's

const fetch = async (url, options) => {
  assert.equal(options.credentials, "include");
  const { pathname } = new URL(url);
  if (instead?.path === pathname) {
    const { status, body } = instead;
    return new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/problem+json" } });
  }
  const sent = [...jar].filter(([, { path }]) => pathname.startsWith(path)).map(([name, { value }]) => `${name}=${value}`);
  const headers = new Headers(options.headers);
  headers.set("Cookie", sent.join("; "));
  headers.set("Origin", "http://localhost:5173");
  const response = await globalThis.fetch(url, { ...options, headers });
  seen.push(`${options.method} ${pathname} ${response.status}`);
  for (const line of response.headers.getSetCookie()) {
    const [, name, value, attributes] = line.match(/^([^=]+)=([^;]*);(.*)$/);
    const path = attributes.match(/Path=([^;]*)/)[1];
    if (/Max-Age=0(;|$)/.test(attributes)) jar.delete(name);
    else jar.set(name, { value, path });
  }
  return response;
};

const count = (line) => seen.filter((one) => one === line).length;
const refused = (work) => work.then(() => assert.fail("it was not refused"), (problem) => problem);
const start = () => createAuth({ baseUrl: service, fetch, retries: 0 });

// Nobody is signed in: one refresh is tried, and its refusal says so.
let auth = start();
assert.deepEqual(await auth.ready(), { status: "unauthenticated", user: null, reason: "none", problem: null });
assert.equal(count("POST /api/auth/refresh 401"), 1);

const email = "ada@example.org";
const password = "a long and private sentence";
assert.equal((await auth.register({ email, password })).email, email);
const patch = (body) => auth.call("PATCH", "/api/users/profile", body);
assert.equal((await patch({ firstName: "Ada" })).user.firstName, "Ada");

// The access cookie has gone, as it does when its token expires: five calls share one refresh.
seen.length = 0;
jar.delete("accessToken");
const answers = await Promise.all(Array.from({ length: 5 }, () => auth.call("GET", "/api/auth/me")));
assert.ok(answers.every(({ user }) => user.email === email));
assert.equal(count("POST /api/auth/refresh 200"), 1);

// A change of password makes the access token stale: refreshed without a word.
await auth.call("POST", "/api/auth/password/change", { currentPassword: password, newPassword: password + "!" });
seen.length = 0;
assert.equal((await auth.user()).email, email);
assert.deepEqual(seen, ["GET /api/auth/me 401", "POST /api/auth/refresh 200", "GET /api/auth/me 200"]);

// A wrong password, a 429 and a 503 say nothing about the session.
for (const [status, code] of [[429, "RATE_LIMITED"], [503, "SERVICE_UNAVAILABLE"]]) {
  jar.delete("accessToken");
  instead = { path: "/api/auth/refresh", status, body: { code } };
  const problem = await refused(auth.call("GET", "/api/auth/me"));
  instead = undefined;
  assert.ok(problem instanceof Problem);
  assert.equal(problem.status, status);
  assert.equal(auth.state.status, "authenticated");
  assert.equal((await auth.user()).email, email);
}
seen.length = 0;
const wrong = await refused(auth.call("POST", "/api/auth/password/change", { currentPassword: "no", newPassword: "something else" }));
assert.equal(wrong.code, "INVALID_CREDENTIALS");
assert.equal(count("POST /api/auth/refresh 200"), 0);

// Another tab signed in: the CSRF token in memory is of another session, and is fetched anew.
const before = jar.get("csrfToken").value;
await fetch(`${service}/api/auth/login`, {
  method: "POST",
  credentials: "include",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ email, password: password + "!" }),
});
assert.notEqual(jar.get("csrfToken").value, before);
assert.equal((await patch({ lastName: "Lovelace" })).user.lastName, "Lovelace");
assert.equal(count("GET /api/auth/csrf-token 200"), 1);

// A reload.
auth.close();
auth = start();
assert.equal((await auth.ready()).user.lastName, "Lovelace");

await auth.logout();
assert.equal(jar.size, 0);
assert.deepEqual([auth.state.status, auth.state.reason], ["unauthenticated", "signed-out"]);
assert.equal((await auth.login({ email, password: password + "!" })).email, email);
auth.close();
console.log("done");
