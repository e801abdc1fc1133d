import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const authUrl = process.env.AUTH_URL ?? "http://localhost:8000";

/** What a server should send with the built app: nothing inline, nothing from elsewhere but pictures and the service. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' https:",
  `connect-src 'self' ${authUrl}`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

export default defineConfig({
  plugins: [react(), { name: "config", configureServer: serveConfig, configurePreviewServer: serveConfig }],
  // The library is linked from beside us; it must not bring a React of its own.
  resolve: { dedupe: ["react", "react-dom"] },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { host: "localhost", port: 5173, strictPort: true },
  preview: {
    host: "localhost",
    port: 5173,
    strictPort: true,
    headers: { "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff" },
  },
});

interface Serving {
  middlewares: { use(path: string, handler: (request: unknown, response: import("node:http").ServerResponse) => void): void };
}

/** Where the service is, as `AUTH_URL` says; a deployment has a file instead. */
function serveConfig({ middlewares }: Serving): void {
  middlewares.use("/config.json", (_, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ authUrl }));
  });
}
