import { useEffect, useState } from "react";

type Theme = "light" | "dark";

const DARK = "(prefers-color-scheme: dark)";

const now = (): Theme =>
  (document.documentElement.dataset.theme as Theme | undefined) ??
  (matchMedia(DARK).matches ? "dark" : "light");

/** The system's theme until another is chosen; the choice stays in this browser. `public/theme.js` is its other half. */
export function ThemeButton() {
  const [theme, setTheme] = useState(now);
  useEffect(() => {
    const follow = () => setTheme(now());
    const system = matchMedia(DARK);
    system.addEventListener("change", follow);
    return () => system.removeEventListener("change", follow);
  }, []);
  const other: Theme = theme === "dark" ? "light" : "dark";
  const choose = () => {
    document.documentElement.dataset.theme = other;
    setTheme(other);
    try {
      localStorage.setItem("theme", other);
    } catch {
      // Storage is blocked: it lasts until the page is closed.
    }
  };
  return (
    <button type="button" className="icon-button" onClick={choose} aria-label={`Use the ${other} theme`}>
      <svg viewBox="0 0 24 24" aria-hidden="true">
        {theme === "dark" ? (
          <path d="M12 3v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z" />
        ) : (
          <path d="M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z" />
        )}
      </svg>
    </button>
  );
}
