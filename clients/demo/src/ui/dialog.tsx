/** Dialogs, as the browser has them: focus goes in, Escape closes, and focus goes back where it was. */
import { type ReactNode, useEffect, useId, useLayoutEffect, useRef, useState } from "react";
import { useLookout } from "../service/hooks";
import { explain, isOutage } from "../service/problems";
import { useAnnounce } from "./announcer";
import { Button, type ButtonProps } from "./button";

export function Dialog({ title, onClose, children }: { title: string; onClose(): void; children: ReactNode }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  // Before the dialog leaves the page: only one that is closed gives the focus back.
  useLayoutEffect(() => {
    const opened = dialog.current;
    opened?.showModal();
    opened?.querySelector<HTMLElement>("[data-first]")?.focus();
    return () => opened?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <h2 id={heading}>{title}</h2>
      {children}
    </dialog>
  );
}

interface ConfirmProps extends Omit<ButtonProps, "onClick" | "title"> {
  title: string; // the question
  confirm: string; // what the button that does it says
  action(): Promise<unknown>;
  explanation?: ReactNode;
  children: ReactNode; // what the button that asks says
}

/** A button that asks before it does something that cannot be undone. Whoever closes the dialog meanwhile still hears of a failure. */
export function ConfirmButton({ title, confirm, action, explanation, children, kind, ...rest }: ConfirmProps) {
  const [open, setOpen] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const seen = useRef(open);
  const lookout = useLookout();
  const say = useAnnounce();
  useEffect(() => void (seen.current = open), [open]);
  const close = () => {
    setOpen(false);
    setError(null);
  };
  const go = async () => {
    setBusy(true);
    setError(null);
    try {
      await action();
      close();
    } catch (thrown) {
      if (isOutage(thrown)) lookout.lost();
      if (seen.current) setError(explain(thrown));
      else say(explain(thrown));
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <Button kind={kind} onClick={() => setOpen(true)} {...rest}>
        {children}
      </Button>
      {open && (
        <Dialog title={title} onClose={close}>
          {explanation && <p>{explanation}</p>}
          <div role="alert">{error && <p className="notice notice-danger">{error}</p>}</div>
          <div className="actions">
            <Button kind={kind === "danger" ? "danger" : "primary"} busy={busy} onClick={go}>
              {confirm}
            </Button>
            <Button onClick={close} data-first>
              Cancel
            </Button>
          </div>
        </Dialog>
      )}
    </>
  );
}
