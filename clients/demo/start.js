/**
 * The service and the demo together: `node start.js PYTHON`, from the repository's root. `make demo` does that.
 *
 * Both end with this process, and this process ends with either. PORT and DEMO_PORT move them.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer as createDoor } from "node:net";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

const python = process.argv[2] ?? "python3";
const PORT = process.env.PORT || "8000";
const DEMO_PORT = process.env.DEMO_PORT || "5173";
const authUrl = `http://localhost:${PORT}`;
const demoUrl = `http://localhost:${DEMO_PORT}`;
process.env.AUTH_URL = authUrl;

// Whoever listens there would be taken for our service, and a number that is none for any port.
for (const [name, port, host] of [["PORT", PORT, "127.0.0.1"], ["DEMO_PORT", DEMO_PORT, "localhost"]]) {
  const isPort = /^[0-9]+$/.test(port) && port > 0 && port < 65536;
  if (!isPort) refuse(`${name} must be a number from 1 to 65535, not ${JSON.stringify(port)}.`);
  if (await isTaken(host, Number(port))) refuse(`Port ${port} is already in use. Try: make demo ${name}=${Number(port) + 1}`);
}
if (PORT === DEMO_PORT) refuse("PORT and DEMO_PORT must differ.");

// In a group of its own, so that Ctrl-C reaches it through us alone, and once.
const service = spawn(python, ["-m", "service"], {
  stdio: ["ignore", "inherit", "inherit"],
  detached: true,
  env: { ...process.env, PORT, PUBLIC_URL: authUrl, FRONTEND_URL: demoUrl },
});
const ended = once(service, "exit").catch((error) => {
  console.error(`The service did not start: ${error.message}`);
  return [1];
});

let demo;
let leaving = false;

async function leave(status) {
  if (leaving) return;
  leaving = true;
  service.kill("SIGTERM");
  await Promise.all([ended, demo?.close()]);
  process.exit(status);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void leave(0));
void ended.then(([status]) => leave(status ?? 1));

try {
  demo = await createServer({
    root: fileURLToPath(new URL(".", import.meta.url)),
    server: { port: Number(DEMO_PORT) },
    logLevel: "warn",
    clearScreen: false,
  });
  await demo.listen();
  await answering();
  if (!leaving) tell();
} catch (error) {
  console.error(`The demo did not start: ${error.message}`);
  await leave(1);
}

function refuse(why) {
  console.error(`The demo did not start: ${why}`);
  process.exit(1);
}

async function isTaken(host, port) {
  const door = createDoor().listen(port, host);
  try {
    await once(door, "listening");
    return false;
  } catch (error) {
    return error.code === "EADDRINUSE";
  } finally {
    door.close();
  }
}

async function answering() {
  while (!leaving) {
    const answer = await fetch(`${authUrl}/health`).catch(() => null);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function tell() {
  console.log(`
  The demo is ready at ${demoUrl}

  Mails:     ${authUrl}/dev/mail, unless SMTP_URL is set
  An admin:  sign up, then in another terminal: ${python} -m service create-admin you@example.org
  The end:   Ctrl-C
`);
}
