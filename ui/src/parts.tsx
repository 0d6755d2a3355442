// The pieces that pages are made of.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type ApiError, session } from "./api";
import type { Tone, Verdict } from "./format";
import { route } from "./router";
import { store, useNow, useStore } from "./store";
import type { State } from "./watch";

export function Status({ v }: { v: Verdict }) {
  return <span class={`status ${v.tone}`} title={v.why}>{v.text}</span>;
}

export function Dot({ tone, title }: { tone: Tone; title?: string }) {
  return <i class={`dot ${tone}`} title={title} />;
}

export function Fault({ error }: { error: ApiError }) {
  return (
    <div class="fault" role="alert">
      <b>{error.code === 403 ? "Not allowed" : error.code === 404 ? "Not found" : "This did not work"}</b> {error.message}
      {error.causes.length > 0 && <ul>{error.causes.map((c) => <li>{c.field && <code>{c.field}</code>} {c.message}</li>)}</ul>}
    </div>
  );
}

export function Loaded({ feed, children }: { feed: { state: State; error?: ApiError; list: unknown[] }; children: ComponentChildren }) {
  if (feed.error && feed.list.length === 0) return <Fault error={feed.error} />;
  if (feed.state === "loading" && feed.list.length === 0) return <p class="quiet">Loading…</p>;
  return <>{feed.state === "retrying" && <p class="stale">The server does not answer; this is as it was. Trying again…</p>}{children}</>;
}

export function Bar({ value, of, asked, label, good }: { value?: number; of: number; asked?: number; label: string; good?: boolean }) {
  const share = (n?: number) => `${of > 0 ? Math.min(100, ((n ?? 0) / of) * 100) : 0}%`;
  const full = !good && of > 0 && (value ?? 0) / of > 0.9;
  return (
    <div class="bar" role="img" aria-label={label} title={label}>
      {asked !== undefined && <i class="asked" style={{ width: share(asked) }} />}
      {value !== undefined && <i class={full ? "used full" : "used"} style={{ width: share(value) }} />}
    </div>
  );
}

// A cell may say an age: now is the same in all of a table.
export interface Col<T> { name: string; cell: (row: T, now: number) => ComponentChildren; sort?: (row: T) => string | number; width: string; wide?: boolean }

const ROW = 34, SPARE = 12;

// Table draws only the rows that are in view: ten thousand are as quick as ten. / filters, j and k or the arrows move, Home and End too, Enter opens. Of several tables
// on a page, keys are for the one that has the focus, or else the first.
export function Table<T extends { metadata: { uid: string; name: string; namespace?: string } }>(p: {
  rows: T[]; cols: Col<T>[]; open?: (row: T) => void; text?: (row: T) => string; empty?: string; tools?: ComponentChildren; short?: boolean;
}) {
  const [filter, setFilter] = useState(""), [sort, setSort] = useState<[number, number]>([0, 1]), [at, setAt] = useState(-1);
  const [top, setTop] = useState(0), [height, setHeight] = useState(600), now = useNow();
  const box = useRef<HTMLDivElement>(null), texts = useMemo(() => new WeakMap<T, string>(), []);
  const rows = useMemo(() => {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (r: T) => {
      let known = texts.get(r);
      if (known === undefined) texts.set(r, (known = `${r.metadata.namespace ?? ""}/${r.metadata.name} ${p.text?.(r) ?? ""}`.toLowerCase()));
      return known;
    };
    const found = words.length ? p.rows.filter((r) => words.every((w) => text(r).includes(w))) : [...p.rows];
    const key = p.cols[sort[0]]?.sort;
    if (!key) return found;
    const keyed = found.map((r) => [key(r), r] as const);
    keyed.sort(([a], [b]) => (typeof a === "number" && typeof b === "number" ? a - b : collate(String(a), String(b))) * sort[1]);
    return keyed.map(([, r]) => r);
  }, [p.rows, p.cols, filter, sort]);
  useLayoutEffect(() => {
    const el = box.current!, measure = new ResizeObserver(() => setHeight(el.clientHeight));
    measure.observe(el);
    return () => measure.disconnect();
  }, []);
  const move = (to: number) => {
    const next = Math.max(0, Math.min(rows.length - 1, to)), el = box.current!;
    setAt(next);
    if ((next + 2) * ROW > el.scrollTop + el.clientHeight) el.scrollTop = (next + 2) * ROW - el.clientHeight;
    if (next * ROW < el.scrollTop) el.scrollTop = next * ROW;
  };
  const down = () => move(at + 1), up = () => move(at - 1);
  useKeys({ j: down, k: up, ArrowDown: down, ArrowUp: up, Home: () => move(0), End: () => move(rows.length - 1), Enter: () => rows[at] && p.open?.(rows[at]) }, () => {
    const tables = [...document.querySelectorAll("main .table")], mine = box.current!.closest(".table");
    return mine === (tables.find((t) => t.contains(document.activeElement)) ?? tables[0]);
  });
  const first = Math.max(0, Math.floor(top / ROW) - SPARE), last = Math.min(rows.length, Math.ceil((top + height) / ROW) + SPARE);
  const narrow = useNarrow(), cols = narrow ? p.cols.filter((c) => !c.wide) : p.cols;
  const grid = { gridTemplateColumns: cols.map((c) => (narrow ? c.width.replace(/minmax\((\d+)px,.*/, "minmax(0, $1fr)") : c.width)).join(" ") };
  return (
    <section class={p.short ? "table short" : "table"}>
      <div class="tools">
        <input class="filter" type="search" placeholder="Filter  /" aria-label="Filter" value={filter} onInput={(e) => setFilter(e.currentTarget.value)}
          onKeyDown={(e) => { if (e.key === "Escape") setFilter(""); if (e.key === "Escape" || e.key === "Enter") (move(0), box.current!.focus()); }} />
        <span class="count">{rows.length === p.rows.length ? rows.length : `${rows.length} of ${p.rows.length}`}</span>
        {p.tools}
      </div>
      <div class="grid" ref={box} tabIndex={0} onScroll={(e) => setTop(e.currentTarget.scrollTop)} onMouseOver={tellWhole} role="table" aria-rowcount={rows.length}>
        <div class="head row" style={grid} role="row">
          {cols.map((c) => (
            <button role="columnheader" aria-sort={p.cols[sort[0]] !== c || !c.sort ? undefined : sort[1] > 0 ? "ascending" : "descending"} disabled={!c.sort} onClick={() => setSort([p.cols.indexOf(c), p.cols[sort[0]] === c ? -sort[1] : 1])}>
              {c.name}{p.cols[sort[0]] === c && c.sort && <span class="order">{sort[1] > 0 ? "↑" : "↓"}</span>}
            </button>
          ))}
        </div>
        <div class="rows" style={{ height: `${rows.length * ROW}px` }}>
          {rows.slice(first, last).map((r, i) => (
            <div key={r.metadata.uid} class={`row${first + i === at ? " at" : ""}${p.open ? " open" : ""}`} style={{ ...grid, top: `${(first + i) * ROW}px` }} role="row" aria-rowindex={first + i + 1}
              onClick={(e) => !(e.target as Element).closest("a,button") && p.open?.(r)}>
              {cols.map((c) => <span role="cell">{c.cell(r, now)}</span>)}
            </div>
          ))}
        </div>
        {rows.length === 0 && <p class="quiet">{filter ? "Nothing matches the filter." : (p.empty ?? "There is nothing here.")}</p>}
      </div>
    </section>
  );
}

// tellWhole lets a cell that is cut off say all of it.
function tellWhole(e: MouseEvent) {
  const cell = (e.target as Element).closest<HTMLElement>('[role="cell"], [role="columnheader"]');
  if (cell) cell.title = cell.scrollWidth > cell.clientWidth ? (cell.textContent ?? "") : "";
}

// useNarrow says whether the window is a phone's, where a table has no room for columns that are wide.
const phone = matchMedia("(max-width: 760px)");
function useNarrow(): boolean {
  const [narrow, set] = useState(phone.matches);
  useEffect(() => {
    const look = () => set(phone.matches);
    phone.addEventListener("change", look);
    return () => phone.removeEventListener("change", look);
  }, []);
  return narrow;
}

const collator = new Intl.Collator("en", { numeric: true });
export const collate = collator.compare;

// useKeys gives keys a meaning while the component is shown and they are meant for it, but not while somebody types.
export function useKeys(keys: Record<string, () => void>, meant?: () => boolean) {
  const now = useRef({ keys, meant });
  now.current = { keys, meant };
  useEffect(() => {
    const f = (e: KeyboardEvent) => {
      const el = e.target as HTMLElement;
      if (e.ctrlKey || e.metaKey || e.altKey || el.closest("input,textarea,select,[contenteditable],.xterm") || (e.key === "Enter" && el.closest("button,a"))) return;
      const act = now.current.keys[e.key];
      if (act && !document.querySelector("dialog[open]") && now.current.meant?.() !== false) {
        e.preventDefault();
        act();
      }
    };
    addEventListener("keydown", f);
    return () => removeEventListener("keydown", f);
  }, []);
}

export function Dialog(p: { title: string; close: () => void; children: ComponentChildren }) {
  const el = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    el.current!.showModal();
    return () => before instanceof HTMLElement && before.focus();
  }, []);
  return (
    <dialog ref={el} onClose={p.close} aria-label={p.title}>
      <h2>{p.title}</h2>
      {p.children}
    </dialog>
  );
}

interface Question { title: string; text: string; danger?: boolean; yes: () => void }
const asked = store<Question | null>(null);
route.follow(() => asked.set(null));
session.follow(() => session.get() || asked.set(null));

// Asked is the one question that waits for an answer. It stands beside the page, not in the row that it is about: rows come and go with the cluster.
export function Asked() {
  const q = useStore(asked), close = () => asked.get() === q && asked.set(null);
  return q && (
    <Dialog title={q.title} close={close}>
      <p>{q.text}</p>
      <div class="buttons"><button onClick={close}>Cancel</button><button class={q.danger ? "danger solid" : "solid"} autofocus onClick={() => { close(); q.yes(); }}>{q.title}</button></div>
    </Dialog>
  );
}

// Action is a button that does something at the server, says so while it does, and shows what went wrong.
export function Action(p: { label: string; run: () => Promise<unknown>; done?: string; ask?: string; danger?: boolean; disabled?: boolean; title?: string }) {
  const [busy, setBusy] = useState(false), { label, ask, danger } = p;
  const run = async () => {
    setBusy(true);
    try {
      await p.run();
      if (p.done) say(p.done);
    } catch (e) {
      say((e as Error).message, true);
    } finally {
      setBusy(false);
    }
  };
  const press = () => (ask ? asked.set({ title: label, text: ask, danger, yes: () => void run() }) : void run());
  return <button class={danger ? "danger" : ""} title={p.title} disabled={busy || p.disabled} onClick={press}>{busy ? "…" : label}</button>;
}

const said = store<{ text: string; bad: boolean } | null>(null);
let until = 0;

// say tells what happened, for a few seconds.
export function say(text: string, bad = false) {
  said.set({ text, bad });
  clearTimeout(until);
  until = window.setTimeout(() => said.set(null), bad ? 10_000 : 4_000);
}

export function Said() {
  const s = useStore(said);
  return s && <div class={s.bad ? "said bad" : "said"} role="status" onClick={() => said.set(null)}>{s.text}</div>;
}

export function Facts({ of }: { of: [string, ComponentChildren][] }) {
  return <dl class="facts">{of.filter(([, v]) => v !== undefined && v !== "" && v !== null && v !== false).map(([k, v]) => <div><dt>{k}</dt><dd>{v}</dd></div>)}</dl>;
}

export function Labels({ of }: { of?: Record<string, string> }) {
  const list = Object.entries(of ?? {});
  return list.length ? <span class="labels">{list.map(([k, v]) => <code title={`${k}=${v}`}>{k}={v}</code>)}</span> : <span class="quiet">none</span>;
}

export function Tabs({ of, at, href }: { of: [string, string][]; at: string; href: (tab: string) => string }) {
  return <nav class="tabs" aria-label="Tabs">{of.map(([id, name]) => <a href={href(id)} aria-current={at === id ? "page" : undefined}>{name}</a>)}</nav>;
}

export function Heading({ kind, name, ns, children, back }: { kind: string; name: string; ns?: string; back: string; children?: ComponentChildren }) {
  return (
    <header class="heading">
      <div>
        <p class="crumb"><a href={back}>{kind}</a>{ns && ` in ${ns}`}</p>
        <h1>{name}</h1>
      </div>
      <div class="actions">{children}</div>
    </header>
  );
}
