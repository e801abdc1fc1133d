// Shows /openapi.json and lets its calls be tried, from this origin and with what this browser has. Whatever is shown goes
// into the page as text, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];
const SAFE = new Set(["get", "head", "options"]);
const EVERYWHERE = new Set(["X-Request-Id", "RateLimit", "RateLimit-Policy"]); // told once
const base = new URL(".", location.href);
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

/** The little of Markdown that descriptions use: `code`, and paragraphs. */
function inline(text) {
  return text.split(/(`[^`]+`)/).map((part) => (part.startsWith("`") && part.length > 2 ? make("code", {}, part.slice(1, -1)) : part));
}
function prose(text) {
  return text.split(/\n{2,}/).filter(Boolean).map((paragraph) => make("p", {}, inline(paragraph.replaceAll("\n", " "))));
}

let api;

function resolved(node) {
  while (node?.$ref) node = node.$ref.slice(2).split("/").reduce((at, part) => at[part.replaceAll("~1", "/")], api);
  return node;
}

/** A schema in a few words; names of shapes lead to them. */
function typeOf(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [make("a", { href: `#shape-${name}` }, name)];
  }
  if (schema.allOf) return schema.allOf.filter((part) => part.$ref).flatMap(typeOf);
  if (schema.anyOf) return schema.anyOf.flatMap((way, at) => [...(at ? [" or "] : []), ...typeOf(way)]);
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.length > 8 ? `one of ${schema.enum.length} values` : schema.enum.join(", ")];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items ?? {})];
  const bounds = [
    schema.format,
    schema.minLength != null && `at least ${schema.minLength} long`,
    schema.maxLength != null && `at most ${schema.maxLength} long`,
    schema.minimum != null && `from ${schema.minimum}`,
    schema.maximum != null && `to ${schema.maximum}`,
  ].filter(Boolean);
  return [(schema.type ?? "anything") + (bounds.length ? ` (${bounds.join(", ")})` : "")];
}

function table(heads, rows) {
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  const lines = rows.map(([first, ...others]) =>
    make("tr", {}, make("th", { scope: "row" }, first), others.map((cell) => make("td", {}, cell))),
  );
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, lines)));
}

// --- Reading ----------------------------------------------------------------------------------------------------------

function whoMay(operation) {
  const ways = operation.security ?? [];
  if (!ways.length) return "anyone";
  const named = [...new Set(ways.flatMap((way) => Object.values(way).flat()))];
  if (named.length) return named.join(" or ");
  if (ways.some((way) => !Object.keys(way).length)) return "optional";
  return ways.some((way) => "apiKey" in way) ? "user or API key" : "user";
}

function waysIn(operation) {
  const names = (way) => Object.keys(way).map((scheme) => make("code", {}, scheme)).flatMap((code, at) => (at ? [" with ", code] : [code]));
  const ways = operation.security.map((way) => (Object.keys(way).length ? names(way) : ["nothing"]));
  return make("p", {}, "Prove who you are with ", ways.flatMap((way, at) => (at ? [", or ", ...way] : way)), ".");
}

function answers(operation) {
  const rows = Object.entries(operation.responses).map(([status, reference]) => {
    const response = resolved(reference);
    const told = [];
    for (const [kind, media] of Object.entries(response.content ?? {})) {
      if (kind === "application/problem+json") {
        for (const [code, sample] of Object.entries(media.examples)) {
          told.push(make("div", {}, make("code", {}, code), ` ${sample.summary}`));
        }
      } else {
        told.push(make("div", { class: "type" }, kind === "application/json" ? typeOf(media.schema) : kind));
      }
    }
    if (!told.length) told.push(response.description);
    const headers = Object.keys(response.headers ?? {}).filter((name) => !EVERYWHERE.has(name));
    if (headers.length) told.push(make("div", { class: "hint" }, `Headers: ${headers.join(", ")}`));
    return [status, told];
  });
  return table(["Status", "What it says"], rows);
}

function examples(operation) {
  return Object.entries(operation.responses).flatMap(([status, reference]) => {
    const sample = resolved(reference).content?.["application/json"]?.example;
    if (sample === undefined) return [];
    return make(
      "details", { class: "more" },
      make("summary", {}, `An example of a ${status}`), make("pre", { tabindex: "0" }, make("code", {}, JSON.stringify(sample, null, 2))),
    );
  });
}

function shape(name, schema) {
  const needed = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, member]) => [
    field + (needed.has(field) ? "" : "?"),
    [make("span", { class: "type" }, typeOf(member)), member.description ? make("div", {}, inline(member.description)) : null],
  ]);
  const about = schema.description ? make("span", { class: "what" }, inline(schema.description)) : null;
  return make(
    "details", { class: "call", id: `shape-${name}` },
    make("summary", {}, make("h3", {}, make("span", { class: "path" }, name), about)),
    make("div", { class: "inside" }, table(["Member", "Type"], rows)),
  );
}

// --- Trying -----------------------------------------------------------------------------------------------------------

const chosen = () => document.querySelector('input[name="credentials"]:checked').value;
const csrfCookie = () => api.components.securitySchemes.csrfToken["x-cookie"];

function csrfToken() {
  const pair = document.cookie.split("; ").find((each) => each.startsWith(`${csrfCookie()}=`));
  return pair ? pair.slice(csrfCookie().length + 1) : "";
}

function showCredentials() {
  byId("token-line").hidden = chosen() !== "bearer";
  byId("csrf-line").textContent = chosen() === "cookies"
    ? csrfToken()
      ? "This browser has a CSRF token; it goes with every call that changes something."
      : "This browser has no session yet: sign in below, with “login” or “register”."
    : "";
}

function use(token) {
  byId("token").value = token;
  document.querySelector('input[name="credentials"][value="bearer"]').checked = true;
  showCredentials();
}

function field(id, name, described, control, required) {
  const hint = described ? make("p", { class: "hint", id: `${id}-hint` }, inline(described)) : null;
  control.id = id;
  if (hint) control.setAttribute("aria-describedby", hint.id);
  if (required) control.required = true;
  return make("div", { class: "field" }, make("label", { for: id }, name + (required ? "" : " (optional)")), control, hint);
}

function input(schema) {
  const choices = schema.enum ?? [];
  if (!choices.length) {
    const hint = schema.default ?? schema.examples?.[0] ?? (schema.type === "array" ? "several with commas between" : "");
    return make("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: String(hint) });
  }
  return make("select", {}, make("option", { value: "" }, "–"), choices.map((choice) => make("option", { value: choice }, choice)));
}

/** The form of a call; gives its element, and what turns its fields into a request. */
function tryIt(path, method, operation, common) {
  const id = operation.operationId;
  const parameters = [...operation.parameters ?? [], ...common.map(resolved).filter((each) => each.name !== "X-Request-Id")];
  const controls = parameters.map((parameter) => [parameter, input(parameter.schema)]);
  const fields = controls.map(([parameter, control]) =>
    field(`${id}-${parameter.name}`, parameter.name, parameter.description, control, parameter.required),
  );
  const [kind, media] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const parts = [];
  let text;
  if (kind === "application/json") {
    const sample = JSON.stringify(media.example, null, 2);
    text = make("textarea", { id: `${id}-body`, rows: String(sample.split("\n").length), spellcheck: "false", placeholder: sample });
    if (operation.requestBody.required) text.value = sample;
    const label = make("label", { for: text.id }, "Body", operation.requestBody.required ? "" : " (optional)", " ", make("span", { class: "type" }, typeOf(media.schema)));
    fields.push(make("div", { class: "body" }, label, text));
  } else if (kind) {
    const schema = resolved(media.schema);
    for (const [name, member] of Object.entries(schema.properties)) {
      const control = input(member);
      parts.push([name, control]);
      fields.push(field(`${id}-${name}`, name, "", control, schema.required?.includes(name)));
    }
  }
  const request = () => {
    let at = path;
    const query = new URLSearchParams();
    const headers = new Headers({ Accept: "application/json, application/problem+json, text/plain;q=0.5" });
    for (const [parameter, control] of controls) {
      const value = control.value.trim();
      if (parameter.in === "path") at = at.replace(`{${parameter.name}}`, encodeURIComponent(value));
      else if (!value) continue;
      else if (parameter.in === "header") headers.set(parameter.name, value);
      else for (const each of parameter.schema.type === "array" ? value.split(/\s*,\s*/) : [value]) query.append(parameter.name, each);
    }
    let body;
    if (text?.value.trim()) body = text.value;
    if (parts.length) body = new URLSearchParams(parts.filter(([, control]) => control.value).map(([name, control]) => [name, control.value])).toString();
    if (body != null) headers.set("Content-Type", kind);
    const url = new URL(at.slice(1) + (query.size ? `?${query}` : ""), base);
    return { url, method: method.toUpperCase(), headers, body };
  };
  return { fields, request };
}

function ask({ url, method, headers, body }) {
  headers = new Headers(headers);
  if (chosen() === "bearer") headers.set("Authorization", `Bearer ${byId("token").value.trim()}`);
  if (chosen() === "cookies" && !SAFE.has(method.toLowerCase()) && csrfToken()) headers.set("X-CSRF-Token", csrfToken());
  return fetch(url, { method, headers, body, credentials: chosen() === "cookies" ? "same-origin" : "omit", redirect: "manual", cache: "no-store" });
}

function asCurl({ url, method, headers, body }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [`curl -X ${method} ${quoted(url.href)}`];
  if (chosen() === "bearer") lines.push('-H "Authorization: Bearer $TOKEN"');
  if (chosen() === "cookies") lines.push("-b cookies.txt -c cookies.txt");
  if (chosen() === "cookies" && !SAFE.has(method.toLowerCase())) lines.push('-H "X-CSRF-Token: $CSRF"');
  for (const [name, value] of headers) if (name !== "accept") lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body != null) lines.push(`-d ${quoted(body)}`);
  return lines.join(" \\\n  ");
}

async function shown(response, took) {
  const text = await response.text();
  let content = text, found;
  try {
    found = JSON.parse(text);
    content = JSON.stringify(found, null, 2);
  } catch { /* it is no JSON, and shown as it is */ }
  const status = `${response.status} ${response.statusText}`.trim();
  const result = make(
    "div", { class: `answer ${response.ok ? "good" : "bad"}` },
    make("p", { class: "status" }, status, make("span", { class: "hint" }, `  in ${Math.round(took)} ms`)),
    content ? make("pre", { tabindex: "0", "aria-label": "Body of the answer" }, make("code", {}, content)) : make("p", { class: "hint" }, "No body."),
  );
  const secret = found?.accessToken ?? found?.apiKey;
  if (typeof secret === "string") {
    const button = make("button", { type: "button", class: "second" }, found.accessToken ? "Use this access token" : "Use this API key");
    button.addEventListener("click", () => use(secret));
    result.append(make("p", {}, button));
  }
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  result.append(make("details", {}, make("summary", {}, "Headers"), make("pre", { tabindex: "0" }, make("code", {}, headers))));
  return result;
}

function filled(path, method, operation, common) {
  const { fields, request } = tryIt(path, method, operation, common);
  const send = make("button", { type: "submit" }, "Send");
  const curl = make("button", { type: "button", class: "second" }, "As curl");
  const result = make("div", { "aria-live": "polite" });
  const form = make("form", {}, fields, make("div", { class: "act" }, send, curl));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    const began = performance.now();
    try {
      const response = await ask(request());
      result.replaceChildren(await shown(response, performance.now() - began));
    } catch (error) {
      result.replaceChildren(make("div", { class: "answer bad" }, make("p", { class: "status" }, "No answer"), make("p", {}, String(error.message))));
    } finally {
      send.disabled = false;
      showCredentials();
    }
  });
  curl.addEventListener("click", () => result.replaceChildren(make("pre", { tabindex: "0" }, make("code", {}, asCurl(request())))));
  return make(
    "div", { class: "inside" },
    prose(operation.description ?? ""), operation.security?.length ? waysIn(operation) : null,
    make("h4", {}, "Try it"), form, result,
    make("h4", {}, "Answers"), answers(operation), examples(operation),
  );
}

// --- The page ---------------------------------------------------------------------------------------------------------

function call(path, method, operation, common) {
  const details = make(
    "details", { class: "call", id: operation.operationId },
    make("summary", {}, make("h3", {},
      make("span", { class: `method ${method}` }, method), make("span", { class: "path" }, path),
      make("span", { class: "who" }, whoMay(operation)), make("span", { class: "what" }, inline(operation.summary)),
    )),
  );
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(filled(path, method, operation, common));
  });
  return details;
}

function words(path, method, operation) {
  const codes = Object.entries(operation.responses).map(([status, each]) => `${status} ${Object.keys(resolved(each).content?.["application/problem+json"]?.examples ?? {}).join(" ")}`);
  const description = operation.description?.replace(/Limited by .*/, ""); // names limits, and some are called as other calls are
  return [method, path, operation.summary, description, operation.operationId, ...codes].join(" ").toLowerCase();
}

function show() {
  byId("title").textContent = api.info.title;
  byId("heading").textContent = `${api.info.title} API`;
  byId("version").textContent = api.info.version;
  byId("about").replaceChildren(make("p", {}, make("strong", {}, api.info.summary)), ...prose(api.info.description));
  const listed = [];
  for (const tag of api.tags) {
    const heading = `tag-${tag.name}`;
    const section = make("section", { class: "group", "aria-labelledby": heading }, make("h2", { id: heading }, tag.name), prose(tag.description));
    const list = make("ul");
    const entry = make("div", {}, make("h3", {}, tag.name), list);
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS.filter((each) => item[each]?.tags.includes(tag.name))) {
        const operation = item[method];
        const details = call(path, method, operation, item.parameters ?? []);
        const link = make("li", {}, make("a", { href: `#${operation.operationId}` }, operation.summary.replace(/[.:;].*/s, "").replaceAll("`", "")));
        section.append(details);
        list.append(link);
        listed.push({ details, link, section, entry, words: words(path, method, operation) });
      }
    }
    byId("calls").append(section);
    byId("index").append(entry);
  }
  byId("shapes").append(...Object.entries(api.components.schemas).filter(([, schema]) => schema.properties).map(([name, schema]) => shape(name, schema)));
  byId("shapes").hidden = false;
  byId("filter").addEventListener("input", () => filter(listed));
}

function filter(listed) {
  const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/);
  const there = new Set();
  for (const { details, link, section, entry, words: text } of listed) {
    details.hidden = link.hidden = !wanted.every((word) => text.includes(word));
    if (!details.hidden) there.add(section).add(entry);
  }
  for (const { section, entry } of listed) {
    section.hidden = !there.has(section);
    entry.hidden = !there.has(entry);
  }
  byId("none").hidden = there.size > 0;
}

function follow() {
  const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.matches("details")) target.open = true;
  target.scrollIntoView();
}

const narrow = matchMedia("(max-width: 56rem)");
const fold = () => { byId("contents").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
for (const radio of document.querySelectorAll('input[name="credentials"]')) radio.addEventListener("change", showCredentials);
addEventListener("hashchange", follow);

try {
  const response = await fetch(new URL("openapi.json", base));
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  api = await response.json();
  show();
  showCredentials();
  follow();
} catch (error) {
  byId("about").replaceChildren(make("p", { role: "alert" }, `The document could not be read: ${error.message}. Load the page again.`));
}
