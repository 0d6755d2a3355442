// How figures, times and states are said.
import type { Obj } from "./watch";

export function age(since: string | undefined, now = Date.now()): string {
  if (!since) return "–";
  return span(now - Date.parse(since));
}

export function span(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s}s`;
  const m = Math.floor(s / 60);
  if (m < 120) return `${m}m`;
  const h = Math.floor(m / 60);
  return h < 48 ? `${h}h` : `${Math.floor(h / 24)}d`;
}

const SUFFIX: Record<string, number> = {
  n: 1e-9, u: 1e-6, m: 1e-3, "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50,
};

// quantity is the number that a resource quantity stands for.
export function quantity(q: string | number | undefined): number {
  if (q === undefined || q === null) return 0;
  const m = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)$/.exec(String(q));
  return m ? Number(m[1]) * (SUFFIX[m[2]] ?? 1) : 0;
}

export const cpu = (cores: number) => (cores === 0 ? "0" : cores < 0.00995 ? `${(cores * 1000).toFixed(1).replace(/\.0$/, "")}m` : cores < 0.0995 ? `${Math.round(cores * 1000)}m` : cores < 10 ? cores.toFixed(2).replace(/\.?0+$/, "") : String(Math.round(cores)));

export function bytes(n: number): string {
  for (const unit of ["B", "Ki", "Mi", "Gi", "Ti"]) {
    if (n < 1024 || unit === "Ti") return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)}${unit === "B" ? "" : unit}`;
    n /= 1024;
  }
  return "";
}

export type Tone = "good" | "wait" | "bad" | "idle";
export interface Verdict { text: string; tone: Tone; why?: string; container?: string }

// podVerdict says in a word how a pod is, as kubectl does, and in a sentence why.
export function podVerdict(p: Obj): Verdict {
  const st = p.status ?? {};
  const scheduled = condition(p, "PodScheduled");
  if (p.metadata.deletionTimestamp) return { text: "Terminating", tone: "wait" };
  if (st.reason === "Evicted" || st.reason === "NodeLost") return { text: st.reason, tone: "bad", why: st.message };
  for (const c of st.initContainerStatuses ?? []) {
    const v = containerTrouble(p, c);
    if (v && !c.ready) return { ...v, text: `Init:${v.text}` };
  }
  for (const c of st.containerStatuses ?? []) {
    const v = containerTrouble(p, c);
    if (v) return v;
  }
  if (st.phase === "Succeeded") return { text: "Completed", tone: "idle" };
  if (st.phase === "Failed") return { text: st.reason || "Failed", tone: "bad", why: st.message };
  if (scheduled?.status === "False") {
    return { text: "Pending", tone: scheduled.reason === "SchedulingGated" ? "wait" : "bad", why: scheduled.message || "No node has been chosen yet" };
  }
  const waiting = [...(st.initContainerStatuses ?? []), ...(st.containerStatuses ?? [])].find((c) => c.state?.waiting);
  if (st.phase !== "Running" || waiting) {
    return { text: waiting?.state.waiting.reason || st.phase || "Pending", tone: "wait", why: waiting?.state.waiting.message };
  }
  const unready = (st.containerStatuses ?? []).find((c: any) => !c.ready);
  if (unready) return { text: "Running", tone: "wait", why: `container ${unready.name} is not ready: its readiness probe has not succeeded`, container: unready.name };
  return { text: "Running", tone: "good" };
}

const NORMAL = new Set(["ContainerCreating", "PodInitializing"]);

function containerTrouble(p: Obj, c: any): Verdict | undefined {
  const w = c.state?.waiting, t = c.state?.terminated, last = c.lastState?.terminated;
  if (w?.reason && !NORMAL.has(w.reason)) {
    const why = w.reason === "CrashLoopBackOff" && last ? `container ${c.name} ${ending(p, c.name, last)}; it has been restarted ${c.restartCount === 1 ? "once" : `${c.restartCount} times`}` : `container ${c.name}: ${w.message ?? w.reason}`;
    return { text: w.reason, tone: "bad", why, container: c.name };
  }
  if (t && t.exitCode !== 0) return { text: t.reason || "Error", tone: "bad", why: `container ${c.name} ${ending(p, c.name, t)}`, container: c.name };
  return undefined;
}

function ending(p: Obj, name: string, t: any): string {
  if (t.reason === "OOMKilled") {
    const limit = (p.spec.containers ?? []).find((c: any) => c.name === name)?.resources?.limits?.memory;
    return `was killed because it used more memory than ${limit ? `its limit of ${limit}` : "the node had"}`;
  }
  if (t.signal) return `was ended by signal ${t.signal}`;
  return `ends with exit code ${t.exitCode}${t.message ? `: ${t.message.trim()}` : ""}`;
}

export function condition(o: Obj, type: string): any {
  return (o.status?.conditions ?? []).find((c: any) => c.type === type);
}

export const restarts = (p: Obj) => (p.status?.containerStatuses ?? []).reduce((n: number, c: any) => n + c.restartCount, 0);
export const readyOf = (p: Obj) => `${(p.status?.containerStatuses ?? []).filter((c: any) => c.ready).length}/${p.spec?.containers?.length ?? 0}`;

// requested is what a pod asks of its node.
export function requested(p: Obj, resource: string): number {
  return (p.spec?.containers ?? []).reduce((n: number, c: any) => n + quantity(c.resources?.requests?.[resource]), 0);
}

export const running = (p: Obj) => p.status?.phase !== "Succeeded" && p.status?.phase !== "Failed";

export function nodeVerdict(n: Obj): Verdict {
  const ready = condition(n, "Ready");
  if (ready?.status !== "True") return { text: "NotReady", tone: "bad", why: ready?.message ?? "the node has not reported yet" };
  const pressed = (n.status?.conditions ?? []).find((c: any) => c.type !== "Ready" && c.status === "True");
  if (pressed) return { text: pressed.type, tone: "bad", why: pressed.message };
  if (n.spec?.unschedulable) return { text: "Cordoned", tone: "wait", why: "no new pods are scheduled here" };
  return { text: "Ready", tone: "good" };
}

// workloadVerdict for everything that keeps pods.
export function workloadVerdict(o: Obj, kind: string): Verdict {
  const st = o.status ?? {}, sp = o.spec ?? {};
  if (kind === "Job") {
    const failed = condition(o, "Failed");
    if (failed?.status === "True") return { text: "Failed", tone: "bad", why: failed.message };
    if (condition(o, "Complete")?.status === "True") return { text: "Complete", tone: "idle" };
    return sp.suspend ? { text: "Suspended", tone: "idle" } : { text: "Running", tone: "wait" };
  }
  if (kind === "CronJob") return sp.suspend ? { text: "Suspended", tone: "idle" } : { text: "Scheduled", tone: "good" };
  const [ready, want, updated] = counts(o, kind);
  const failing = condition(o, "ReplicaFailure");
  if (failing?.status === "True") return { text: "Failing", tone: "bad", why: failing.message };
  const progress = condition(o, "Progressing");
  if (progress?.status === "False") return { text: "Stuck", tone: "bad", why: progress.message };
  if (sp.paused) return { text: "Paused", tone: "wait" };
  if ((st.observedGeneration ?? 0) < (o.metadata.generation ?? 0) || updated < want) return { text: "Rolling out", tone: "wait" };
  if (want === 0) return { text: "Scaled to 0", tone: "idle" };
  return ready < want ? { text: "Not ready", tone: "wait" } : { text: "Ready", tone: "good" };
}

// counts are ready, wanted and updated replicas.
export function counts(o: Obj, kind: string): [number, number, number] {
  const st = o.status ?? {};
  if (kind === "DaemonSet") return [st.numberReady ?? 0, st.desiredNumberScheduled ?? 0, st.updatedNumberScheduled ?? 0];
  if (kind === "Job") return [st.succeeded ?? 0, o.spec?.completions ?? 1, st.active ?? 0];
  if (kind === "CronJob") return [(st.active ?? []).length, 0, 0];
  const want = o.spec?.replicas ?? 1;
  if (kind === "ReplicaSet" || kind === "ReplicationController") return [st.readyReplicas ?? 0, want, want];
  // A StatefulSet with partition updates only the pods above it.
  const partition = kind === "StatefulSet" ? (o.spec?.updateStrategy?.rollingUpdate?.partition ?? 0) : 0;
  return [st.readyReplicas ?? 0, want, (st.updatedReplicas ?? 0) + Math.min(partition, want)];
}
