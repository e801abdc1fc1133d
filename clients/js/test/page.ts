/** The globals of a page, from happy-dom; the network stays Node's own. Import it before React. */
import { Window } from "happy-dom";

export const page = new Window({ url: "https://app.example/" });
const globals = globalThis as Record<string, unknown>;
for (const name of Object.getOwnPropertyNames(page)) {
  if (!(name in globalThis)) globals[name] = (page as unknown as Record<string, unknown>)[name];
}
globals.window = globalThis;
globals.addEventListener = page.addEventListener.bind(page);
globals.removeEventListener = page.removeEventListener.bind(page);
globals.IS_REACT_ACT_ENVIRONMENT = true;
