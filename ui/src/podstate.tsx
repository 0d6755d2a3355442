// Why a pod is as it is, and what happened to it when.
import { useEffect, useState } from "preact/hooks";
import { get, request } from "./api";
import { age, bytes, condition, cpu, podVerdict, quantity } from "./format";
import { objectPath } from "./kinds";
import { link } from "./router";
import type { Obj } from "./watch";

const HINTS: [RegExp, string][] = [
  [/ImagePull|ErrImage|InvalidImage/, "Is the image's name right, is it on the node, and may the node pull it?"],
  [/CrashLoopBackOff|Error/, "Its log tells what it said before it ended."],
  [/OOMKilled/, "Give it a higher memory limit, or make it use less."],
  [/CreateContainerConfigError/, "It refers to something that is not there, such as a Secret or a ConfigMap."],
  [/RunContainerError|StartError/, "Is its command in the image, and may it be run?"],
];

// Explained says what is wrong with a pod, with what the scheduler knows and the last words of a container that ended.
export function Explained({ pod }: { pod: Obj }) {
  const v = podVerdict(pod);
  if (v.tone === "good" || v.tone === "idle") return null;
  if (!v.why) return null;
  const hint = HINTS.find(([pattern]) => pattern.test(v.text))?.[1];
  return (
    <section class={`explained ${v.tone}`}>
      <h2>{v.text}</h2>
      <p>{v.why.replace(/[.\s]*$/, ".")}</p>
      {hint && <p>{hint}</p>}
      {v.container && /CrashLoop|Error|OOM/.test(v.text) && <LastWords pod={pod} container={v.container} />}
      {!pod.spec.nodeName && <Verdicts pod={pod} />}
    </section>
  );
}

function LastWords({ pod, container }: { pod: Obj; container: string }) {
  const [text, setText] = useState("");
  const count = (pod.status.containerStatuses ?? []).find((c: any) => c.name === container)?.restartCount ?? 0;
  useEffect(() => {
    const path = objectPath("Pod", pod.metadata.namespace, pod.metadata.name) + `/log?tailLines=8&container=${encodeURIComponent(container)}`;
    const read = (more: string) => request("GET", path + more, { accept: "*/*" }).then((r) => r.text());
    (count > 0 ? read("&previous=true").catch(() => read("")) : read("")).then(setText, () => setText(""));
  }, [pod.metadata.uid, container, count]);
  if (!text.trim()) return null;
  return <><p>Its last words (<a href={link("pod", pod.metadata.namespace!, pod.metadata.name, "logs")}>whole log</a>):</p><pre>{text}</pre></>;
}

const amount = (resource: string, q: string) => (resource === "cpu" ? cpu(quantity(q)) : resource === "memory" || resource === "ephemeral-storage" ? bytes(quantity(q)) : q);

// Verdicts are the scheduler's, node by node, where the server tells them.
function Verdicts({ pod }: { pod: Obj }) {
  const [said, setSaid] = useState<any>();
  const version = condition(pod, "PodScheduled")?.lastTransitionTime ?? "";
  useEffect(() => void get(objectPath("Pod", pod.metadata.namespace, pod.metadata.name) + "/explain").then(setSaid, () => setSaid(undefined)), [pod.metadata.uid, version]);
  if (!said) return null;
  return (
    <>
      {said.waits && <p>{said.waits}</p>}
      {said.nearest && <p>{said.nearest}</p>}
      <table class="verdicts"><tbody>{(said.nodes ?? []).slice(0, 50).map((n: any) => (
        <tr><th>{n.name}</th><td>{n.fits ? "fits" : (n.reasons ?? []).join("; ")}</td><td>{n.detail || (n.lacks ?? []).map((l: any) => `${l.resource}: ${amount(l.resource, l.asked)} asked, ${amount(l.resource, l.free)} free`).join("; ")}</td></tr>
      ))}</tbody></table>
      {said.helps?.length > 0 && <p class="quiet">It is tried again after: {said.helps.join(", ")}.</p>}
    </>
  );
}

interface Span { from: number; to: number; tone: string; text: string }

// Timeline draws what each container did since the pod was made, as far as its status remembers: the run before, and this one.
export function Timeline({ pod, now }: { pod: Obj; now: number }) {
  const start = Date.parse(pod.metadata.creationTimestamp), time = (s?: string) => (s ? Date.parse(s) : now);
  const ends = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])].map((c: any) => c.state?.terminated?.finishedAt);
  const end = ends.length && ends.every(Boolean) ? Math.max(...ends.map(time)) + 1000 : now;
  const whole = Math.max(end - start, 1000);
  const marks = [["PodScheduled", "scheduled"], ["Initialized", "initialized"], ["Ready", "ready"]]
    .map(([type, text]) => ({ at: condition(pod, type), text })).filter((m) => m.at?.status === "True").map((m) => ({ at: time(m.at.lastTransitionTime), text: m.text }));
  const lanes = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])].map((c: any) => ({ name: c.name, spans: spans(c, time) }));
  const left = (t: number) => `${Math.max(0, Math.min(100, ((t - start) / whole) * 100))}%`;
  if (!lanes.length) return null;
  return (
    <section class="timeline" aria-label="State over time">
      {lanes.map((l) => (
        <div class="lane"><span>{l.name}</span><div class="track">{l.spans.map((s) => (
          <i class={s.tone} title={s.text} style={{ left: left(s.from), width: `max(3px, ${((s.to - s.from) / whole) * 100}%)` }} />
        ))}</div></div>
      ))}
      <div class="lane"><span /><div class="marks">{marks.map((m) => <i style={{ left: left(m.at) }} title={`${m.text} after ${age(pod.metadata.creationTimestamp, m.at)}`} />)}<b>{age(pod.metadata.creationTimestamp, end)}</b></div></div>
      <p class="quiet">{marks.map((m) => `${m.text} after ${age(pod.metadata.creationTimestamp, m.at)}`).join(" · ")}</p>
    </section>
  );
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
