/** How numbers and times are written: as the reader does, as far as that is English like the words around them. */
export const LOCALES: string[] = [
  ...(globalThis.navigator?.languages ?? []).filter((language) => /^en(-[a-z\d]+)*$/i.test(language)),
  "en-GB",
];
