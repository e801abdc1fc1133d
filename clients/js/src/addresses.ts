import type { Options } from "./types.js";

/** Where the service is, without a slash at the end. */
export const baseOf = ({ baseUrl }: Options): string => new URL(baseUrl || "/", globalThis.location?.href).href.replace(/\/+$/, "");

export const originOf = (url: string): string => new URL(url).origin;

/** A relative address is below the service's; only what begins with a scheme or `//` is elsewhere. */
export function absolute(input: string, base: string): string {
  return new URL(/^([a-z][a-z\d+.-]*:|\/\/)/i.test(input) ? input : `${base}/${input.replace(/^\//, "")}`, base).href;
}
