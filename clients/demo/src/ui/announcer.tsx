/** Short good news: shown for a while, and read out. What went wrong stands where it happened instead. */
import { createContext, type ReactNode, use, useCallback, useEffect, useState } from "react";

const AnnouncerContext = createContext<(text: string) => void>(() => {});

export const useAnnounce = () => use(AnnouncerContext);

export function Announcer({ children }: { children: ReactNode }) {
  const [said, setSaid] = useState({ text: "", turn: 0 });
  const say = useCallback((text: string) => setSaid((before) => ({ text, turn: before.turn + 1 })), []);
  useEffect(() => {
    if (!said.text) return;
    const timer = setTimeout(() => setSaid((before) => ({ ...before, text: "" })), 6000);
    return () => clearTimeout(timer);
  }, [said]);
  return (
    <AnnouncerContext value={say}>
      {children}
      <div className="toasts" role="status">
        {said.text && (
          <p key={said.turn} className="toast">
            {said.text}
          </p>
        )}
      </div>
    </AnnouncerContext>
  );
}
