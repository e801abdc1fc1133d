import type { User } from "gatepost-client";
import { useState } from "react";

/** The picture of a person, or the first letters of the name. Pictures come over https only: the CSP allows no others. */
export function Person({ user, small }: { user: Pick<User, "name" | "email" | "picture">; small?: boolean }) {
  const [broken, setBroken] = useState<string | null>(null);
  const picture = user.picture?.startsWith("https://") && user.picture !== broken ? user.picture : null;
  const className = `person ${small ? "person-small" : ""}`;
  if (picture) {
    const size = small ? 28 : 56;
    return (
      <img
        className={className}
        src={picture}
        alt=""
        width={size}
        height={size}
        referrerPolicy="no-referrer"
        onError={() => setBroken(picture)}
      />
    );
  }
  const words = (user.name ?? user.email).split(/\s+/).filter(Boolean);
  const letters = [words[0], words.length > 1 ? words.at(-1) : ""].map((word) => [...(word ?? "")][0] ?? "").join("");
  return (
    <span className={className} aria-hidden="true">
      {letters.toUpperCase()}
    </span>
  );
}
