/** Forms: what the service says about a field stands beside it, everything else above the button. */
import { Problem } from "gatepost-client";
import { createContext, type FormEvent, type ReactNode, use, useEffect, useId, useRef, useState } from "react";
import { useLookout } from "../service/hooks";
import { explain, isOutage } from "../service/problems";
import { SLOW } from "../service/reach";
import { Button } from "./button";

type Messages = Readonly<Record<string, string | undefined>>;

interface Told {
  fields: Messages;
  form: string | null;
}

const NOTHING: Told = { fields: {}, form: null };
const FieldsContext = createContext<{ errors: Messages; clear(name: string): void }>({ errors: {}, clear: () => {} });

export interface FormProps {
  submit: string; // what the button says
  onSubmit(values: Readonly<Record<string, string>>, form: HTMLFormElement): Promise<unknown>;
  /** Which field a problem without fields is about, for this form; `undefined` leaves it to the form. */
  place?(problem: Problem): Messages | undefined;
  danger?: boolean;
  beside?: ReactNode; // next to the button
  children?: ReactNode;
}

/** What was typed stays whatever happens; who submits again while it works is not heard. */
export function Form({ submit, onSubmit, place, danger, beside, children }: FormProps) {
  const [told, setTold] = useState<Told>(NOTHING);
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const lookout = useLookout();
  const summary = useId();

  // To the first field that is wrong, else to the sentence above the button.
  useEffect(() => {
    const wrong = form.current?.querySelector<HTMLElement>('[aria-invalid="true"]');
    if (wrong) wrong.focus();
    else if (told.form) document.getElementById(summary)?.focus();
  }, [told, summary]);

  const send = async (event: FormEvent) => {
    event.preventDefault();
    const sent = form.current;
    if (busy || !sent) return;
    const missing = incomplete(sent);
    setTold({ fields: missing, form: null });
    if (Object.keys(missing).length) return;
    setBusy(true);
    const slow = setTimeout(() => void lookout.suspect(), SLOW);
    try {
      const values = Object.fromEntries([...new FormData(sent)].map(([name, value]) => [name, String(value)]));
      await onSubmit(values, sent);
      setTold(NOTHING);
    } catch (error) {
      if (isOutage(error)) lookout.lost();
      setTold(sort(error, sent, place));
    } finally {
      clearTimeout(slow);
      setBusy(false);
    }
  };

  const clear = (name: string) =>
    setTold((before) => {
      if (!(name in before.fields)) return before;
      const { [name]: _, ...fields } = before.fields;
      return { ...before, fields };
    });

  return (
    <form ref={form} onSubmit={send} noValidate className="form">
      <FieldsContext value={{ errors: told.fields, clear }}>{children}</FieldsContext>
      <div role="alert">
        {told.form && (
          <p id={summary} tabIndex={-1} className="notice notice-danger">
            {told.form}
          </p>
        )}
      </div>
      <div className="actions">
        <Button type="submit" kind={danger ? "danger" : "primary"} busy={busy}>
          {submit}
        </Button>
        {beside}
      </div>
    </form>
  );
}

/** The browser's own validation, with our words beside the fields. */
function incomplete(form: HTMLFormElement): Messages {
  const found: Record<string, string> = {};
  for (const element of form.elements) {
    if (!(element instanceof HTMLInputElement) || element.validity.valid || !element.name) continue;
    const { valueMissing, typeMismatch } = element.validity;
    if (valueMissing) found[element.name] = element.dataset.missing ?? "Fill this in.";
    else if (typeMismatch && element.type === "email") found[element.name] = "Enter an address such as ada@example.org.";
    else if (typeMismatch) found[element.name] = "Enter a whole address, beginning with https://.";
    else found[element.name] = element.validationMessage;
  }
  return found;
}

function sort(error: unknown, form: HTMLFormElement, place: FormProps["place"]): Told {
  if (!(error instanceof Problem)) return { fields: {}, form: explain(error) };
  const placed = place?.(error);
  if (placed) return { fields: placed, form: null };
  const here = error.errors.filter(({ field }) => form.elements.namedItem(field));
  if (!here.length || here.length < error.errors.length) return { fields: byField(here), form: explain(error) };
  return { fields: byField(here), form: null };
}

const byField = (errors: Problem["errors"]): Messages =>
  Object.fromEntries(errors.map(({ field, message }) => [field, message[0]?.toUpperCase() + message.slice(1)]));

export interface FieldProps {
  name: string;
  label: string;
  type?: "text" | "email" | "password" | "url";
  autoComplete: string;
  hint?: ReactNode;
  optional?: boolean;
  missing?: string; // what to say when it is empty
  defaultValue?: string | null;
  maxLength?: number;
}

export function Field({ name, label, type = "text", hint, optional, missing, defaultValue, ...rest }: FieldProps) {
  const { errors, clear } = use(FieldsContext);
  const [shown, setShown] = useState(false);
  const id = useId();
  const error = errors[name];
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const input = (
    <input
      id={id}
      name={name}
      type={type === "password" && shown ? "text" : type}
      required={!optional}
      defaultValue={defaultValue ?? ""}
      data-missing={missing}
      aria-invalid={error ? true : undefined}
      aria-describedby={described || undefined}
      autoCapitalize={type === "text" ? undefined : "none"}
      spellCheck={type === "text" ? undefined : false}
      onInput={() => clear(name)}
      {...rest}
    />
  );
  return (
    <div className="field">
      <label htmlFor={id}>
        {label} {optional && <span className="optional">optional</span>}
      </label>
      {type === "password" ? (
        <div className="with-button">
          {input}
          <button
            type="button"
            className="reveal"
            aria-controls={id}
            aria-label={`${shown ? "Hide" : "Show"} what is typed`}
            onClick={() => setShown(!shown)}
          >
            {shown ? "Hide" : "Show"}
          </button>
        </div>
      ) : (
        input
      )}
      {hint && (
        <p id={`${id}-hint`} className="hint">
          {hint}
        </p>
      )}
      {error && (
        <p id={`${id}-error`} className="field-error">
          {error}
        </p>
      )}
    </div>
  );
}

/** One of a few. */
export function Select(props: {
  name: string;
  label: string;
  options: readonly (readonly [value: string, label: string])[];
  defaultValue?: string;
}) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{props.label}</label>
      <select id={id} name={props.name} defaultValue={props.defaultValue}>
        {props.options.map(([value, label]) => (
          <option key={value} value={value}>
            {label}
          </option>
        ))}
      </select>
    </div>
  );
}

/** Several of a set. The chosen ones are in the form's data under `name`, once each. */
export function Checks(props: {
  name: string;
  legend: string;
  options: readonly string[];
  chosen?: readonly string[];
  hint?: ReactNode;
}) {
  const { errors, clear } = use(FieldsContext);
  const id = useId();
  const error = errors[props.name];
  return (
    <fieldset
      className="checks"
      aria-describedby={[props.hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined}
      onChange={() => clear(props.name)}
    >
      <legend>{props.legend}</legend>
      {props.hint && (
        <p id={`${id}-hint`} className="hint">
          {props.hint}
        </p>
      )}
      <div className="check-list">
        {props.options.map((option) => (
          <label key={option} className="check">
            <input
              type="checkbox"
              name={props.name}
              value={option}
              defaultChecked={props.chosen?.includes(option)}
              aria-invalid={error ? true : undefined}
            />
            <span>{option}</span>
          </label>
        ))}
      </div>
      {error && (
        <p id={`${id}-error`} className="field-error">
          {error}
        </p>
      )}
    </fieldset>
  );
}
