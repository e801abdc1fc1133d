/** Where the service is: read when the app starts, so that one build serves every environment. */
export interface Config {
  authUrl: string; // the service's origin, without a slash at the end
}

/** Read `/config.json`; throws an `Error` whose message tells the operator what is wrong with it. */
export async function loadConfig(): Promise<Config> {
  const response = await fetch("/config.json", { credentials: "same-origin" });
  const type = response.headers.get("Content-Type") ?? "";
  if (!response.ok || !type.includes("json")) throw new Error("This app has no /config.json.");
  return readConfig(await response.json());
}

export function readConfig(content: unknown): Config {
  const authUrl = (content as { authUrl?: unknown } | null)?.authUrl;
  if (typeof authUrl !== "string" || !/^https?:\/\/[^/?#]+\/?$/.test(authUrl)) {
    throw new Error('/config.json must say where the service is: {"authUrl": "https://auth.example.org"}');
  }
  return { authUrl: authUrl.replace(/\/$/, "") };
}
