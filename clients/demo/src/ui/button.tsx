import type { ButtonHTMLAttributes } from "react";

export interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: "primary" | "plain" | "danger" | "quiet";
  busy?: boolean;
  "data-first"?: boolean; // where the focus goes when its dialog opens
}

/** While busy it takes no clicks and keeps its width and the focus: a `disabled` button would lose it. */
export function Button({ kind = "plain", busy, onClick, className = "", children, type = "button", ...rest }: ButtonProps) {
  return (
    <button
      type={type}
      className={`button button-${kind} ${className}`}
      aria-disabled={busy || undefined}
      onClick={(event) => (busy ? event.preventDefault() : onClick?.(event))}
      {...rest}
    >
      <span className="button-label">{children}</span>
      {busy && <span className="spinner" aria-hidden="true" />}
    </button>
  );
}
