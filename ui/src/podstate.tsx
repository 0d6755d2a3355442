// Why a pod is as it is, and what happened to it when.
import { useEffect, useMemo, useState } from "preact/hooks";
import { get, request } from "./api";
import { age, condition, podVerdict, span } from "./format";
import { Moment, history } from "./history";
import { listPath, objectPath } from "./kinds";
import { useKeys } from "./parts";
import { link } from "./router";
import { Obj, useFeed } from "./watch";

const HINTS: [RegExp, string][] = [
  [/ImagePull|ErrImage|InvalidImage/, "Is the image's name right, is it on the node, and may the node pull it?"],
  [/OOMKilled/, "Give it a higher memory limit, or make it use less."],
  [/CreateContainerConfigError/, "It refers to something that is not there, such as a Secret or a ConfigMap."],
  [/RunContainerError|StartError/, "Is its command in the image, and may it be run?"],
];

// Explained says what is wrong with a pod, with what the scheduler knows and the last words of a container that ended.
export function Explained({ pod }: { pod: Obj }) {
  const v = podVerdict(pod), unplaced = !pod.spec.nodeName && !pod.metadata.deletionTimestamp;
  if (v.tone === "good" || v.tone === "idle") return null;
  if (!v.why && !unplaced) return null;
  const hint = HINTS.find(([pattern]) => pattern.test(v.text))?.[1];
  return (
    <section class={`explained ${v.tone}`}>
      <h2>{v.text}</h2>
      {v.why && <p>{v.why.replace(/[.\s]*$/, ".")}</p>}
      {hint && <p>{hint}</p>}
      {v.container && /CrashLoop|Error|OOM/.test(v.text) && <LastWords pod={pod} container={v.container} />}
      {unplaced && <Verdicts pod={pod} why={v.why} />}
    </section>
  );
}

function LastWords({ pod, container }: { pod: Obj; container: string }) {
  const [text, setText] = useState<string>();
  const count = (pod.status.containerStatuses ?? []).find((c: any) => c.name === container)?.restartCount ?? 0;
  useEffect(() => {
    const path = objectPath("Pod", pod.metadata.namespace, pod.metadata.name) + `/log?tailLines=8&container=${encodeURIComponent(container)}`;
    const read = (more: string) => request("GET", path + more, { accept: "*/*" }).then((r) => r.text());
    (count > 0 ? read("&previous=true").catch(() => read("")) : read("")).then(setText, () => setText(undefined));
  }, [pod.metadata.uid, container, count]);
  if (text === undefined) return null;
  if (!text.trim()) return <p>It wrote nothing to its log before.</p>;
  return <><p>Its last words (<a href={link("pod", pod.metadata.namespace!, pod.metadata.name, "logs", container)}>whole log</a>):</p><pre>{text}</pre></>;
}

const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1).replace(/[.\s]*$/, ".");

// Verdicts are the scheduler's, node by node, where the server tells them. why is what was said before.
function Verdicts({ pod, why }: { pod: Obj; why?: string }) {
  const [said, setSaid] = useState<any>();
  const told = condition(pod, "PodScheduled"), version = `${told?.lastTransitionTime} ${told?.message}`;
  useEffect(() => void get(objectPath("Pod", pod.metadata.namespace, pod.metadata.name) + "/explain").then(setSaid, () => setSaid(undefined)), [pod.metadata.uid, version]);
  if (!said) return null;
  const nodes = said.nodes ?? [], p = said.preemption;
  return (
    <>
      {said.message && said.message !== why && <p>{sentence(said.message)}</p>}
      {said.nearest && <p>{nodes.length ? "Nearest" : "Missing"}: {said.nearest}.</p>}
      {p && <p>Preemption: {p.waiting ? `it waits until pods that gave way have left node ${p.node}` : p.victims?.length ? `${p.victims.join(", ")} would have to leave node ${p.node}` : (p.why ?? `node ${p.node} is held for a less important pod, which would give way`).replace(/[.\s]*$/, "")}.</p>}
      <table class="verdicts"><tbody>{nodes.slice(0, SHOWN).map((n: any) => (
        <tr><th>{n.name}</th><td>{n.fits ? "fits" : (n.reasons ?? []).join("; ")}</td><td>{figures(n)}</td></tr>
      ))}</tbody></table>
      {nodes.length > SHOWN && <p class="quiet">… and {nodes.length - SHOWN} more nodes, where more is missing.</p>}
      {said.attempts > 0 && <p class="quiet">Tried {said.attempts === 1 ? "once" : `${said.attempts} times`}, last {age(said.tried)} ago. It {said.waits}{said.helps?.length > 0 && `: ${said.helps.join("; ")}`}.</p>}
    </>
  );
}

const SHOWN = 50;

// figures are what is behind a node's verdict, and whose they are. They are not rounded: a little may be all that is missing.
function figures(n: any): string {
  const lacks = (n.lacks ?? []).map((l: any) => {
    const users = (l.users ?? []).map((u: any) => `${u.pod} ${u.quantity}${u.waiting ? " to come" : ""}`).join(", ");
    return `${l.resource}: ${l.asked} asked, ${l.free} of ${l.allocatable} free${users && ` (${users})`}${l.tooSmall ? ", so it is too small even if empty" : ""}`;
  });
  const pods = (n.pods ?? []).join(", ");
  return [n.detail && n.detail + (pods && `: ${pods}`) + (n.more ? " and more" : ""), ...lacks].filter(Boolean).join("; ");
}

interface Span { from: number; to: number; tone: string; text: string }

// Timeline tells what happened to a pod and its containers: each container's runs as bars, as far as its status remembers them, and below them the moments in order. j and k go
// from moment to moment, as the arrows do once the list has the focus; a line through the bars shows when the chosen one was.
export function Timeline({ pod, now }: { pod: Obj; now: number }) {
  const feed = useFeed(listPath("Event", pod.metadata.namespace), `fieldSelector=involvedObject.uid%3D${pod.metadata.uid}`);
  const moments = useMemo(() => history(pod, feed.list), [pod, feed.list]);
  const [at, setAt] = useState(-1), chosen = moments[at];
  const start = Date.parse(pod.metadata.creationTimestamp), time = (s?: string) => (s ? Date.parse(s) : now);
  const statuses = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? []), ...(pod.status?.ephemeralContainerStatuses ?? [])];
  const over = pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
  const end = over ? Math.max(start, ...moments.map((m) => m.at)) + 1000 : now;
  const whole = Math.max(end - start, 1000);
  const left = (t: number) => `${Math.max(0, Math.min(100, ((t - start) / whole) * 100))}%`;
  const move = (by: number) => setAt((i) => Math.max(0, Math.min(moments.length - 1, i < 0 && by < 0 ? moments.length - 1 : i + by)));
  useKeys({ j: () => move(1), k: () => move(-1) });
  return (
    <section class="timeline" aria-label="State over time">
      {statuses.map((c) => (
        <div class="lane"><span title={c.name}>{c.name}</span><div class="track">
          {spans(c, time).map((s) => <i class={s.tone} title={s.text} style={{ left: left(s.from), width: `max(3px, ${((s.to - s.from) / whole) * 100}%)` }} />)}
          {chosen && <u style={{ left: left(chosen.at) }} />}
        </div></div>
      ))}
      <div class="lane"><span class="quiet">{age(pod.metadata.creationTimestamp, end)}</span><div class="marks">{moments.map((m, i) => (
        <i class={i === at ? "at" : m.tone} style={{ left: left(m.at) }} title={`${m.what}, ${offset(m, start)}`} />
      ))}</div></div>
      <History moments={moments} start={start} at={at} choose={setAt} move={move} />
    </section>
  );
}

const offset = (m: Moment, start: number) => `${span(m.at - start)} after it was made`;

function History({ moments, start, at, choose, move }: { moments: Moment[]; start: number; at: number; choose: (i: number) => void; move: (by: number) => void }) {
  useEffect(() => document.getElementById(`moment-${at}`)?.scrollIntoView({ block: "nearest" }), [at]);
  const arrows = (e: KeyboardEvent) => {
    const by = { ArrowDown: 1, ArrowUp: -1, Home: -moments.length, End: moments.length }[e.key];
    if (by) (e.preventDefault(), move(by));
  };
  return (
    <ol class="history" role="listbox" aria-label="What happened, in order" tabIndex={0} aria-activedescendant={at < 0 ? undefined : `moment-${at}`} onKeyDown={arrows}>
      {moments.map((m, i) => (
        <li id={`moment-${i}`} role="option" aria-selected={i === at} class={m.tone} onClick={() => choose(i)}>
          <time title={`${new Date(m.at).toISOString()}, ${offset(m, start)}`}>{clock(m.at)}</time>
          <i class="dot" />
          <div><b>{m.what}</b>{m.who && <code> {m.who}</code>}{m.text && <span> {m.text}</span>}</div>
        </li>
      ))}
    </ol>
  );
}

// clock is the time of the day, with the day if it is another one.
function clock(t: number): string {
  const d = new Date(t), day = d.toDateString() === new Date().toDateString() ? "" : `${d.toLocaleDateString("en", { month: "short", day: "numeric" })} `;
  return day + d.toLocaleTimeString("en", { hour12: false });
}

function spans(c: any, time: (s?: string) => number): Span[] {
  const out: Span[] = [];
  for (const s of [c.lastState, c.state]) {
    const run = s?.running ?? s?.terminated;
    if (!run?.startedAt) continue;
    const tone = s.running ? (c.ready ? "good" : "wait") : s.terminated.exitCode ? "bad" : "idle";
    out.push({ from: time(run.startedAt), to: time(run.finishedAt), tone, text: s.running ? "running" : `${s.terminated.reason} (${s.terminated.exitCode})` });
  }
  return out;
}
