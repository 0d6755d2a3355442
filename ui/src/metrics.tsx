// What a pod or node uses: the last hour from its node, and from metrics.k8s.io for as long as the page is open.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, get, sessionEnded } from "./api";
import { bytes, cpu, quantity } from "./format";
import { base } from "./kinds";
import { Fault } from "./parts";
import type { Obj } from "./watch";

// A canvas knows no light-dark(): these are legible on both grounds.
const COLOURS = ["#139e96", "#d97b1e", "#8b6cf0", "#d6458f"];
// What memory's axis is divided by: powers of two.
const BINARY = Array.from({ length: 40 }, (_, i) => 2 ** i);
const EVERY = 5000, KEPT = 720;
export const METRICS = base("metrics.k8s.io", "v1beta1");

// usePolled asks again while somebody looks: metrics cannot be watched.
export function usePolled<T>(path: string): { value?: T; error?: ApiError } {
  const [got, set] = useState<{ value?: T; error?: ApiError }>({});
  useEffect(() => {
    const abort = new AbortController();
    const ask = () => document.hidden || sessionEnded.get() || get<T>(path, abort.signal).then((value) => set({ value }), (error) => abort.signal.aborted || set((old) => ({ ...old, error })));
    ask();
    const id = setInterval(ask, EVERY);
    return () => { clearInterval(id); abort.abort(); };
  }, [path]);
  return got;
}

// The last hour, as a node serves it: nanocores and bytes at each time.
interface Past { times: number[]; series: { uid?: string; container?: string; cpu: (number | null)[]; memory: (number | null)[] }[] }
type Data = (number | null)[][]; // times in seconds, then each series

// usePast asks a node once. Who may not ask it, or one that has nothing, begins with empty plots.
export function usePast(node: string | undefined, query: string): Past | undefined {
  const [past, set] = useState<Past>();
  useEffect(() => {
    const abort = new AbortController();
    if (node) get<Past>(`/api/v1/nodes/${encodeURIComponent(node)}/proxy/stats/history?${query}`, abort.signal).then(set, () => undefined);
    return () => abort.abort();
  }, [node, query]);
  return past;
}

// plotted is the past of some things, in the order in which they are plotted, from when there was one of them.
export function plotted(past: Past | undefined, what: "cpu" | "memory", are: ((s: Past["series"][0]) => boolean)[]): Data | undefined {
  if (!past) return;
  const values = are.map((is) => past.series.find(is)?.[what].map((v) => (v === null || what === "memory" ? v : v / 1e9)) ?? past.times.map(() => null));
  const began = past.times.findIndex((_, i) => values.some((v) => v[i] !== null));
  return [past.times.map((t) => t / 1000), ...values].map((d) => (began < 0 ? [] : d.slice(began)));
}

export const used = (m: any) => ({ cpu: quantity(m?.usage?.cpu), memory: quantity(m?.usage?.memory) });

const lookup = (usage: Record<string, string>, what: string) => quantity(usage[what]);

export function PodMetrics({ pod }: { pod: Obj }) {
  const { value, error } = usePolled<any>(`${METRICS}/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}`);
  const names: string[] = pod.spec.containers.map((c: any) => c.name);
  const of = (what: string) => names.map((n) => { const c = value?.containers?.find((x: any) => x.name === n); return c ? lookup(c.usage, what) : null; });
  const limit = (what: string) => pod.spec.containers.reduce((n: number, c: any) => n + quantity(c.resources?.limits?.[what]), 0);
  const { namespace, name, uid } = pod.metadata, past = usePast(pod.spec.nodeName, `namespace=${encodeURIComponent(namespace!)}&pod=${encodeURIComponent(name)}`);
  const before = (what: "cpu" | "memory") => useMemo(() => plotted(past, what, names.map((n) => (s) => s.uid === uid && s.container === n)), [past]);
  const cpuBefore = before("cpu"), memoryBefore = before("memory");
  if (error && !value && !past?.times.length) return <Fault error={error} />;
  return (
    <div class="plots">
      <Plot title="CPU" names={names} at={value?.timestamp} values={of("cpu")} before={cpuBefore} say={cpu} limit={limit("cpu")} />
      <Plot title="Memory" names={names} at={value?.timestamp} values={of("memory")} before={memoryBefore} say={bytes} limit={limit("memory")} />
    </div>
  );
}

export function Plot({ title, names, at, values, before, say, limit }: { title: string; names: string[]; at?: string; values: (number | null)[]; before?: Data; say: (n: number) => string; limit?: number }) {
  const [span, setSpan] = useState("");
  const box = useRef<HTMLDivElement>(null), plot = useRef<any>(null), data = useRef<Data>([[], ...names.map(() => [])]), seen = useRef("");
  useEffect(() => {
    let gone = false, follow: ResizeObserver | undefined;
    void import("uplot").then(({ default: UPlot }) => {
      if (gone) return;
      const axis = { stroke: () => getComputedStyle(box.current!).color, grid: { stroke: "#8883", width: 1 }, ticks: { stroke: "#8883" } };
      plot.current = new UPlot({
        width: box.current!.clientWidth, height: 220, cursor: { y: false }, scales: { x: { range: (_u: any, min: number, max: number) => [Math.min(min, max - 60), max] }, y: { range: (_u: any, _min: number, max: number) => [0, Math.max(max * 1.1, 1e-3)] } },
        axes: [axis, { ...axis, size: 60, incrs: say === bytes ? BINARY : undefined, values: (_u: any, v: number[]) => v.map(say) }],
        series: [{}, ...names.map((label, i) => ({ label, stroke: COLOURS[i % COLOURS.length], width: 2, value: (_u: any, v: number | null) => (v === null ? "–" : say(v)) }))],
      } as any, data.current as any, box.current!);
      follow = new ResizeObserver(() => plot.current?.setSize({ width: box.current!.clientWidth, height: 220 }));
      follow.observe(box.current!);
    });
    return () => { gone = true; follow?.disconnect(); plot.current?.destroy(); };
  }, [names.join()]);
  const show = () => {
    const times = data.current[0], say = (t: number | null) => new Date(t! * 1000).toLocaleTimeString();
    if (times.length) setSpan(`${title}: ${times.length} figures, ${say(times[0])} to ${say(times[times.length - 1])}`);
    plot.current?.setData(data.current);
  };
  useEffect(() => {
    if (!before) return;
    const first = data.current[0][0] ?? Infinity, n = before[0].filter((t) => t! < first).length;
    data.current = data.current.map((d, i) => [...before[i].slice(0, n), ...d]);
    show();
  }, [before]);
  useEffect(() => {
    if (!at || at === seen.current || values.every((v) => v === null)) return;
    seen.current = at;
    const time = Date.parse(at) / 1000, times = data.current[0];
    if (time <= (times[times.length - 1] ?? 0)) return; // the node has told of it already
    times.push(time);
    values.forEach((v, i) => data.current[i + 1].push(v));
    if (data.current[0].length > KEPT) data.current.forEach((d) => d.shift());
    show();
  }, [at]);
  const last = values.reduce((a: number, v) => a + (v ?? 0), 0);
  return <section class="plot"><h3>{title} <small>{at ? say(last) : "no figures yet"}{limit ? ` of ${say(limit)}` : ""}</small></h3><div ref={box} role="img" aria-label={span} /></section>;
}
