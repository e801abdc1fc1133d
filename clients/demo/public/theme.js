// The theme that was chosen here, before the first paint. A file, not a script in the page: the CSP allows no other.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is blocked: the system decides.
}
