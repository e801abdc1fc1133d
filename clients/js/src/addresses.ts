import type { Options } from "./types.js";

/** Where the service is, without a slash at the end. While a server renders there is no page: nobody can be asked then. */
export function baseOf({ baseUrl }: Options): string {
  return new URL(baseUrl || "/", globalThis.location?.href ?? "http://server.invalid").href.replace(/\/+$/, "");
}

/** The origin, also of an address whose scheme browsers know no origin of: theirs is `null` for all of them. */
export function originOf(url: string): string {
  const { protocol, host } = new URL(url);
  return `${protocol}//${host}`;
}

/** A relative address is below the service's; only what begins with a scheme or `//` is elsewhere. */
export function absolute(input: string, base: string): string {
  return new URL(/^([a-z][a-z\d+.-]*:|\/\/)/i.test(input) ? input : `${base}/${input.replace(/^\//, "")}`, base).href;
}
