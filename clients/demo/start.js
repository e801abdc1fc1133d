/**
 * The service and the demo together: `node start.js PYTHON`, from the repository's root. `make demo` does that.
 *
 * Both end with this process, and this process ends with either. PORT and DEMO_PORT move them.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

const python = process.argv[2] ?? "python3";
const { PORT = "8000", DEMO_PORT = "5173" } = process.env;
const authUrl = `http://localhost:${PORT}`;
const demoUrl = `http://localhost:${DEMO_PORT}`;
process.env.AUTH_URL = authUrl;

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
  const remedy = /already in use/.test(error.message) ? `. Try: make demo DEMO_PORT=${Number(DEMO_PORT) + 1}` : "";
  console.error(`The demo did not start: ${error.message}${remedy}`);
  await leave(1);
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
