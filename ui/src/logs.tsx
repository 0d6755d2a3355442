// A container's log, live: the last lines first, then what comes, searched as one types. Lines are text and nothing else.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, checkSession, request, sessionEnded } from "./api";
import { useStore } from "./store";
import { objectPath } from "./kinds";
import { Fault, useKeys } from "./parts";
import { Obj, lines } from "./watch";

const KEPT = 20_000, LINE = 18, BATCH = 80;
// Terminals' colour codes say nothing here.
const ESCAPES = /\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]/g;

export function Logs({ pod, first: wanted }: { pod: Obj; first?: string }) {
  const names = [...(pod.spec.containers ?? []), ...(pod.spec.initContainers ?? []), ...(pod.spec.ephemeralContainers ?? [])].map((c: any) => c.name);
  const usual = wanted ?? pod.metadata.annotations?.["kubectl.kubernetes.io/default-container"];
  const [container, setContainer] = useState<string>(names.find((n) => n === usual) ?? names[0]), [previous, setPrevious] = useState(false), [stamps, setStamps] = useState(false), [search, setSearch] = useState("");
  const [follow, setFollow] = useState(true), box = useRef<HTMLDivElement>(null);
  const log = useLog(pod, container, previous, stamps);
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
        {names.length > 1 && <select aria-label="Container" value={container} onChange={(e) => setContainer(e.currentTarget.value)}>{names.map((n) => <option>{n}</option>)}</select>}
        <input class="filter" type="search" placeholder="Search  /" aria-label="Search" value={search} onInput={(e) => setSearch(e.currentTarget.value)} />
        <span class="count">{pattern ? `${shown.length} of ${log.lines.length}` : log.lines.length} lines</span>
        <label><input type="checkbox" checked={follow} onChange={(e) => setFollow(e.currentTarget.checked)} /> follow</label>
        <label><input type="checkbox" checked={stamps} onChange={(e) => setStamps(e.currentTarget.checked)} /> times</label>
        <label><input type="checkbox" checked={previous} onChange={(e) => setPrevious(e.currentTarget.checked)} /> the run before</label>
        <button onClick={() => save(`${pod.metadata.name}-${container}.log`, log.lines)}>Save</button>
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

function useLog(pod: Obj, container: string, previous: boolean, stamps: boolean): Log {
  const [log, setLog] = useState<Log>({ lines: [], open: true });
  // A container that starts anew has a new log, and one that has not begun yet has none, whether it has been made or not.
  const st = pod.status ?? {}, of = [...(st.containerStatuses ?? []), ...(st.initContainerStatuses ?? []), ...(st.ephemeralContainerStatuses ?? [])].find((c: any) => c.name === container);
  const run = of?.state?.running || of?.state?.terminated || of?.lastState?.terminated ? of.containerID : "";
  const ended = useStore(sessionEnded);
  useEffect(() => {
    if (ended) return; // what has been read stays; it is read anew when the user is back
    const abort = new AbortController(), kept: string[] = [];
    let told = 0;
    setLog({ lines: [], open: true });
    const tell = (open: boolean, error?: ApiError) => setLog({ lines: kept.slice(), open, error });
    const path = objectPath("Pod", pod.metadata.namespace, pod.metadata.name) +
      `/log?container=${encodeURIComponent(container)}&tailLines=5000&follow=${!previous}&previous=${previous}&timestamps=${stamps}`;
    (async () => {
      const res = await request("GET", path, { accept: "*/*", signal: abort.signal });
      for await (const line of lines(res)) {
        kept.push(line.replace(ESCAPES, ""));
        if (kept.length > KEPT * 1.1) kept.splice(0, kept.length - KEPT);
        told ||= window.setTimeout(() => { told = 0; tell(true); }, BATCH);
      }
      clearTimeout(told);
      tell(false);
      void checkSession();
    })().catch((e) => abort.signal.aborted || (clearTimeout(told), void checkSession(), tell(false, e instanceof ApiError ? e : new ApiError(0, "", "the log ended: " + e.message))));
    return () => { clearTimeout(told); abort.abort(); };
  }, [pod.metadata.uid, container, previous, stamps, run, ended]);
  return log;
}

export function save(name: string, text: string[]) {
  const url = URL.createObjectURL(new Blob([text.join("\n") + "\n"], { type: "text/plain" }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
