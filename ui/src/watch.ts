// One manager for all that the page follows: a list, then a watch from there on, shared by everybody who asks for the same, resumed after faults with
// growing pauses. All of them share the browser's one connection to the server.
import { useEffect, useMemo, useState } from "preact/hooks";
import { ApiError, request, signedInAgain } from "./api";

export interface Meta {
  name: string; namespace?: string; uid: string; resourceVersion: string; creationTimestamp: string; deletionTimestamp?: string; deletionGracePeriodSeconds?: number; generation?: number;
  labels?: Record<string, string>; annotations?: Record<string, string>; ownerReferences?: { kind: string; name: string; uid: string; controller?: boolean }[];
}
export interface Obj { apiVersion?: string; kind?: string; metadata: Meta; spec?: any; status?: any; [more: string]: any }
export interface Column { name: string; type: string; format?: string; priority: number; description?: string }
export interface Row { metadata: Meta; cells: unknown[] }

export type State = "loading" | "live" | "retrying" | "failed";
// What comes within BATCH, longer where there is more to draw (ms for each item), is drawn at once.
const PAGE = 500, LINGER = 20_000, SLOWEST = 30_000, BATCH = 60, BATCH_EACH = 0.05;
const TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

export class Feed<T extends { metadata: Meta } = Obj> {
  state: State = "loading";
  error?: ApiError;
  columns: Column[] = [];
  list: T[] = [];
  private items = new Map<string, T>();
  private version = "";
  private users = new Set<() => void>();
  private abort?: AbortController;
  private linger?: number;
  private told?: number;

  constructor(readonly path: string, readonly query: string, readonly table: boolean, private gone: () => unknown) {}

  use(f: () => void): () => void {
    this.users.add(f);
    clearTimeout(this.linger);
    if (!this.abort) void this.run();
    return () => {
      this.users.delete(f);
      if (this.users.size === 0) this.linger = window.setTimeout(() => this.stop(), LINGER);
    };
  }

  stop() {
    this.abort?.abort();
    this.abort = undefined;
    this.gone();
  }

  private async run() {
    const abort = (this.abort = new AbortController());
    let pause = 500;
    while (!abort.signal.aborted) {
      try {
        if (!this.version) await this.fetchAll(abort.signal);
        this.set("live");
        const began = Date.now();
        await this.watch(abort.signal);
        if (Date.now() - began > 5000) pause = 500;
      } catch (e) {
        if (abort.signal.aborted) return;
        const err = e instanceof ApiError ? e : new ApiError(0, "", String(e));
        if (err.code === 410) {
          this.version = "";
          continue;
        }
        if (err.code === 401) {
          await signedInAgain(abort.signal);
          continue;
        }
        // What is forbidden or not served stays so until somebody asks anew.
        this.set(err.code === 403 || err.code === 404 ? "failed" : "retrying", err);
        if (err.code === 403 || err.code === 404) pause = SLOWEST;
      }
      await new Promise((r) => setTimeout(r, pause * (0.8 + 0.4 * Math.random())));
      pause = Math.min(pause * 2, SLOWEST);
    }
  }

  private url(more: string) {
    return `${this.path}?${[this.query, more].filter(Boolean).join("&")}`;
  }

  private async fetchAll(signal: AbortSignal) {
    const seen = new Set<string>();
    let next = "";
    do {
      const more = `limit=${PAGE}` + (next ? `&continue=${encodeURIComponent(next)}` : "");
      const page = await (await request("GET", this.url(more), { accept: this.table ? TABLE : undefined, signal })).json();
      for (const item of this.itemsOf(page)) {
        seen.add(item.metadata.uid);
        this.items.set(item.metadata.uid, item);
      }
      next = page.metadata.continue ?? "";
      this.version = page.metadata.resourceVersion;
      this.tell();
    } while (next);
    for (const key of this.items.keys()) if (!seen.has(key)) this.items.delete(key);
    this.list = [...this.items.values()]; // who begins to look now must not take what is empty for all there is
    this.error = undefined;
    this.tell();
  }

  private itemsOf(page: any): T[] {
    if (page.kind !== "Table") {
      // Items of a list have no kind where the list's says it.
      const kind = page.kind.replace(/List$/, ""), apiVersion = page.apiVersion;
      return (page.items ?? []).map((o: any) => slim({ kind, apiVersion, ...o }));
    }
    if (page.columnDefinitions?.length) this.columns = page.columnDefinitions;
    return (page.rows ?? []).map((r: any) => ({ metadata: slim(r.object).metadata, cells: r.cells }));
  }

  private async watch(signal: AbortSignal) {
    const more = `watch=true&allowWatchBookmarks=true&resourceVersion=${this.version}`;
    const res = await request("GET", this.url(more), { accept: this.table ? TABLE : undefined, signal });
    for await (const line of lines(res)) this.event(JSON.parse(line));
  }

  private event(e: { type: string; object: any }) {
    if (e.type === "ERROR") {
      this.version = "";
      throw new ApiError(e.object.code, e.object.reason, e.object.message);
    }
    const version = e.object.metadata?.resourceVersion || e.object.rows?.[0]?.object?.metadata?.resourceVersion;
    if (version) this.version = version;
    if (e.type === "BOOKMARK") return;
    const found = e.object.kind === "Table" ? this.itemsOf(e.object) : [slim(e.object) as unknown as T];
    for (const item of found) {
      if (e.type === "DELETED") this.items.delete(item.metadata.uid);
      else this.items.set(item.metadata.uid, item);
    }
    this.tell();
  }

  private set(state: State, error?: ApiError) {
    this.state = state;
    this.error = error;
    this.tell();
  }

  // tell gathers what comes in a short time into one drawing.
  private tell() {
    this.told ??= window.setTimeout(() => {
      this.told = undefined;
      this.list = [...this.items.values()];
      for (const f of [...this.users]) f();
    }, BATCH + BATCH_EACH * this.items.size);
  }
}

// slim drops what no page shows and what would fill the memory with thousands of objects.
function slim(o: any): any {
  if (o?.metadata) delete o.metadata.managedFields;
  delete o?.metadata?.annotations?.["kubectl.kubernetes.io/last-applied-configuration"];
  return o;
}

export async function* lines(res: Response): AsyncGenerator<string> {
  const reader = res.body!.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += decoder.decode(value, { stream: !done });
    const parts = rest.split("\n");
    rest = parts.pop()!;
    for (const p of parts) yield p;
    if (done) {
      if (rest) yield rest;
      return;
    }
  }
}

const feeds = new Map<string, Feed<any>>();

function feed<T extends { metadata: Meta }>(path: string, query: string, table: boolean): Feed<T> {
  const key = `${table}|${path}|${query}`;
  let f = feeds.get(key);
  if (!f) {
    const made: Feed<T> = new Feed<T>(path, query, table, () => feeds.get(key) === made && feeds.delete(key)); // and not another user's
    feeds.set(key, (f = made));
  }
  return f;
}

// dropFeeds forgets everything, when another user comes.
export function dropFeeds() {
  for (const f of [...feeds.values()]) f.stop();
}

const nothing = { state: "loading" as State, list: [] as any[], columns: [] as Column[], error: undefined as ApiError | undefined };

// useFeed follows a list; path "" follows nothing.
export function useFeed<T extends { metadata: Meta } = Obj>(path: string, query = "", table = false) {
  const [n, poke] = useState(0);
  const f = useMemo(() => (path ? feed<T>(path, query, table) : undefined), [path, query, table]);
  useEffect(() => {
    const look = () => poke((x) => x + 1), end = f?.use(look);
    if (f) look(); // what came between the drawing and now
    return end;
  }, [f]);
  return useMemo(() => (f ? { state: f.state, list: f.list, columns: f.columns, error: f.error } : nothing), [f, n]) as
    { state: State; list: T[]; columns: Column[]; error?: ApiError };
}

export function useRows(path: string, query = "") {
  return useFeed<Row>(path, query, true);
}

// useObject follows one object.
export function useObject(path: string, name: string): { state: State; object?: Obj; error?: ApiError } {
  const { state, list, error } = useFeed(path, `fieldSelector=metadata.name%3D${encodeURIComponent(name)}`);
  return { state, object: list[0], error };
}
