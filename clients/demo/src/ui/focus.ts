/** Where the focus goes when what had it leaves the page: a row that was removed, a button that has done its work. */

/** What may get the focus without a keyboard coming up on a phone. */
const REACHABLE = "a[href], button, summary, [tabindex]";

/** Browsers leave the focus with nobody then, and a screen reader at the top of the page: give it to what is near. */
export function keepFocus(root: Element): void {
  let last: Element | null = null;
  root.addEventListener("focusin", ({ target }) => void (last = target as Element));
  root.addEventListener("pointerdown", ({ target }) => {
    if (!last?.contains(target as Node)) last = null; // they have turned away from it
  });
  new MutationObserver((changes) => {
    if (!last || last.isConnected) return;
    const gone = last;
    const change = changes.find(({ removedNodes }) => [...removedNodes].some((node) => node.contains(gone)));
    if (!change) return;
    last = null;
    // A page that is new here takes the focus by itself.
    requestAnimationFrame(() => {
      if (document.activeElement === document.body) heir(change)?.focus({ preventScroll: true });
    });
  }).observe(root, { childList: true, subtree: true });
}

/** The neighbour of what was removed, else the heading above it. */
function heir({ target, nextSibling, previousSibling }: MutationRecord): HTMLElement | null {
  for (const near of [nextSibling, previousSibling]) {
    if (!(near instanceof HTMLElement) || !near.isConnected) continue;
    if (near.tagName === "SECTION") return heading(near);
    const found = [...near.querySelectorAll<HTMLElement>(REACHABLE)].at(near === nextSibling ? 0 : -1);
    if (found) return found;
  }
  return heading((target as Element).closest("section, dialog") ?? document.querySelector("main"));
}

function heading(of: Element | null): HTMLElement | null {
  const found = of?.querySelector<HTMLElement>("h1, h2") ?? null;
  if (found) found.tabIndex = -1;
  return found;
}
