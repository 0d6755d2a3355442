// Logs, live: of a container, or of all of a workload's. The last lines first, then what comes, searched as one types. Lines are text and nothing else.
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, checkSession, request, sessionEnded } from "./api";
import { useStore } from "./store";
import { objectPath } from "./kinds";
import { Fault, useKeys } from "./parts";
import { Obj, lines } from "./watch";

const KEPT = 20_000, LINE = 18, BATCH = 80, TOGETHER = 50;
// Terminals' colour codes say nothing here.
const ESCAPES = /\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]/g;

export function Logs({ pod, first: wanted }: { pod: Obj; first?: string }) {
  const names = containersOf(pod.spec);
  const usual = wanted ?? pod.metadata.annotations?.["kubectl.kubernetes.io/default-container"];
  const [container, setContainer] = useState<string>(names.find((n) => n === usual) ?? names[0]), [previous, setPrevious] = useState(false), [stamps, setStamps] = useState(false);
  const log = useLog(pod, container, previous, stamps);
  return (
    <LogBox log={log} file={`${pod.metadata.name}-${container}.log`} choice={names.length > 1 && <Choice of={names} at={container} choose={setContainer} />}>
      <label><input type="checkbox" checked={stamps} onChange={(e) => setStamps(e.currentTarget.checked)} /> times</label>
      <label><input type="checkbox" checked={previous} onChange={(e) => setPrevious(e.currentTarget.checked)} /> the run before</label>
    </LogBox>
  );
}

// LogsOf shows the logs of a workload's pods together, by the times of their lines, each with its pod's name. spec is that of new pods.
export function LogsOf({ pods, spec, name }: { pods: Obj[]; spec: any; name: string }) {
  const all = "All containers", names = [...new Set([...containersOf(spec), ...pods.flatMap((p) => containersOf(p.spec))])];
  const [container, setContainer] = useState(all), [stamps, setStamps] = useState(false);
  const { log, left } = useLogs(pods, container === all ? "" : container, stamps);
  return (
    <>
      {left > 0 && <p class="quiet">Of the {TOGETHER} newest containers; {left} more are not shown. skiff logs searches all.</p>}
      <LogBox log={log} file={`${name}.log`} choice={names.length > 1 && <Choice of={[all, ...names]} at={container} choose={setContainer} />}>
        <label><input type="checkbox" checked={stamps} onChange={(e) => setStamps(e.currentTarget.checked)} /> times</label>
      </LogBox>
    </>
  );
}

const containersOf = (spec: any): string[] => [...(spec?.containers ?? []), ...(spec?.initContainers ?? []), ...(spec?.ephemeralContainers ?? [])].map((c: any) => c.name);

function Choice({ of, at, choose }: { of: string[]; at: string; choose: (name: string) => void }) {
  return <select aria-label="Container" value={at} onChange={(e) => choose(e.currentTarget.value)}>{of.map((n) => <option>{n}</option>)}</select>;
}

function LogBox({ log, file, choice, children }: { log: Log; file: string; choice: ComponentChildren; children: ComponentChildren }) {
  const [search, setSearch] = useState(""), [follow, setFollow] = useState(true), box = useRef<HTMLDivElement>(null);
  const pattern = useMemo(() => matcher(search), [search]);
  const shown = useMemo(() => (pattern ? log.lines.filter((l) => (pattern.lastIndex = 0, pattern.test(l))) : log.lines), [log, pattern]);
  const [top, setTop] = useState(0), [height, setHeight] = useState(500);
  useEffect(() => {
    const el = box.current!;
    setHeight(el.clientHeight);
    if (follow) el.scrollTop = el.scrollHeight;
  }, [shown, follow]);
  useKeys({ "/": () => document.querySelector<HTMLInputElement>(".logs .filter")?.focus(), f: () => setFollow(!follow) });
  const onScroll = (e: Event) => {
    const el = e.currentTarget as HTMLDivElement;
    setTop(el.scrollTop);
    setHeight(el.clientHeight);
    setFollow(el.scrollHeight - el.scrollTop - el.clientHeight < LINE * 2);
  };
  const first = Math.max(0, Math.floor(top / LINE) - 20), last = Math.min(shown.length, Math.ceil((top + height) / LINE) + 20);
  return (
    <section class="logs">
      <div class="tools">
        {choice}
        <input class="filter" type="search" placeholder="Search  /" aria-label="Search" value={search} onInput={(e) => setSearch(e.currentTarget.value)} />
        <span class="count">{pattern ? `${shown.length} of ${log.lines.length}` : log.lines.length} lines</span>
        <label><input type="checkbox" checked={follow} onChange={(e) => setFollow(e.currentTarget.checked)} /> follow</label>
        {children}
        <button onClick={() => save(file, log.lines)}>Save</button>
      </div>
      {log.error && <Fault error={log.error} />}
      <div class="log" ref={box} onScroll={onScroll} tabIndex={0} aria-label="Log">
        <div style={{ height: `${shown.length * LINE}px` }}>
          <div style={{ transform: `translateY(${first * LINE}px)` }}>{shown.slice(first, last).map((l, i) => <pre key={first + i}>{pattern ? marked(l, pattern) : l || " "}</pre>)}</div>
        </div>
        {log.lines.length === 0 && !log.error && <p class="quiet">{log.open ? "Nothing has been written yet." : "The log is empty."}</p>}
      </div>
    </section>
  );
}

// matcher is what is searched as a regular expression, or as it stands if it is none.
function matcher(search: string): RegExp | undefined {
  if (!search) return undefined;
  try {
    return new RegExp(search, "gi");
  } catch {
    return new RegExp(search.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  }
}

function marked(line: string, pattern: RegExp) {
  const out = [];
  let at = 0;
  for (const m of line.matchAll(pattern)) {
    if (!m[0]) break;
    out.push(line.slice(at, m.index), <mark>{m[0]}</mark>);
    at = m.index + m[0].length;
  }
  return [...out, line.slice(at)];
}

interface Log { lines: string[]; open: boolean; error?: ApiError }

// runOf is a container's present or last run. One that starts anew has a new log, and one that has not begun yet has none, whether it has been made or not.
function runOf(pod: Obj, container: string): string {
  const st = pod.status ?? {}, of = [...(st.containerStatuses ?? []), ...(st.initContainerStatuses ?? []), ...(st.ephemeralContainerStatuses ?? [])].find((c: any) => c.name === container);
  return of?.state?.running || of?.state?.terminated || of?.lastState?.terminated ? of.containerID : "";
}

const pathOf = (pod: Obj, container: string, options: string) => `${objectPath("Pod", pod.metadata.namespace, pod.metadata.name)}/log?container=${encodeURIComponent(container)}&${options}`;

const asError = (e: Error) => (e instanceof ApiError ? e : new ApiError(0, "", "the log ended: " + e.message));

function useLog(pod: Obj, container: string, previous: boolean, stamps: boolean): Log {
  const [log, setLog] = useState<Log>({ lines: [], open: true });
  const run = runOf(pod, container), ended = useStore(sessionEnded);
  useEffect(() => {
    if (ended) return; // what has been read stays; it is read anew when the user is back
    const abort = new AbortController(), kept: string[] = [];
    let told = 0;
    setLog({ lines: [], open: true });
    const tell = (open: boolean, error?: ApiError) => setLog({ lines: kept.slice(), open, error });
    (async () => {
      const res = await request("GET", pathOf(pod, container, `tailLines=5000&follow=${!previous}&previous=${previous}&timestamps=${stamps}`), { accept: "*/*", signal: abort.signal });
      for await (const line of lines(res)) {
        kept.push(line.replace(ESCAPES, ""));
        if (kept.length > KEPT * 1.1) kept.splice(0, kept.length - KEPT);
        told ||= window.setTimeout(() => { told = 0; tell(true); }, BATCH);
      }
      clearTimeout(told);
      tell(false);
      void checkSession();
    })().catch((e) => abort.signal.aborted || (clearTimeout(told), void checkSession(), tell(false, asError(e))));
    return () => { clearTimeout(told); abort.abort(); };
  }, [pod.metadata.uid, container, previous, stamps, run, ended]);
  return log;
}

interface Line { at: number; time: string; text: string }

// useLogs follows the logs of many pods. Streams come and go with the containers' runs; what was read of one that has gone stays.
function useLogs(pods: Obj[], container: string, stamps: boolean): { log: Log; left: number } {
  const [log, setLog] = useState<{ lines: Line[]; open: boolean; error?: ApiError }>({ lines: [], open: true });
  const ended = useStore(sessionEnded), kept = useRef<Line[]>([]), told = useRef(0), streams = useRef(new Map<string, AbortController>());
  const runs = pods.flatMap((p) => containersOf(p.spec).filter((c) => !container || c === container).map((c) => ({ pod: p, container: c, run: runOf(p, c) })))
    .filter((x) => x.run).sort((a, b) => Date.parse(b.pod.metadata.creationTimestamp) - Date.parse(a.pod.metadata.creationTimestamp));
  const shown = runs.slice(0, TOGETHER), several = shown.some((x) => containersOf(x.pod.spec).length > 1);
  const tell = (error?: ApiError) => {
    told.current = 0;
    setLog((before) => ({ lines: kept.current.slice(), open: streams.current.size > 0, error: error ?? before.error }));
  };
  const follow = async ({ pod, container: c, run }: (typeof runs)[0]) => {
    const abort = new AbortController(), key = pod.metadata.uid + c + run, name = several && !container ? `${pod.metadata.name}/${c}` : pod.metadata.name;
    streams.current.set(key, abort);
    try {
      const res = await request("GET", pathOf(pod, c, `tailLines=${Math.ceil(5000 / shown.length)}&follow=true&timestamps=true`), { accept: "*/*", signal: abort.signal });
      for await (const line of lines(res)) {
        if (abort.signal.aborted) return;
        const space = line.indexOf(" "), time = line.slice(0, space), at = Date.parse(time);
        place(kept.current, { at, time, text: `${name} ${line.slice(space + 1).replace(ESCAPES, "")}` });
        told.current ||= window.setTimeout(tell, BATCH);
      }
    } catch (e) {
      // A container that is gone by now has no log to show, which is no fault.
      if (!abort.signal.aborted && (e as ApiError).code !== 404) tell(asError(e as Error));
    }
    if (!abort.signal.aborted) void checkSession();
  };
  const stop = () => {
    for (const s of streams.current.values()) s.abort();
    streams.current.clear();
    clearTimeout(told.current);
    kept.current = [];
    told.current = 0;
  };
  useEffect(() => stop, []);
  useEffect(() => {
    if (ended) return; // as for one log
    stop();
    setLog({ lines: [], open: true });
  }, [container, ended]);
  useEffect(() => {
    if (!ended) for (const x of shown) if (!streams.current.has(x.pod.metadata.uid + x.container + x.run)) void follow(x);
  }, [shown.map((x) => x.pod.metadata.uid + x.container + x.run).join(), container, ended]);
  const text = useMemo(() => ({ ...log, lines: log.lines.map((l) => (stamps ? `${l.time} ${l.text}` : l.text)) }), [log, stamps]);
  return { log: text, left: runs.length - shown.length };
}

// place puts a line where its time is. Most come last; of equal times the one that came first stays first.
function place(all: Line[], line: Line) {
  let i = all.length;
  while (i > 0 && all[i - 1].at > line.at) i--;
  all.splice(i, 0, line);
  if (all.length > KEPT * 1.1) all.splice(0, all.length - KEPT);
}

export function save(name: string, text: string[]) {
  const url = URL.createObjectURL(new Blob([text.join("\n") + "\n"], { type: "text/plain" }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
