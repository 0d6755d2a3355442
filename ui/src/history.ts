// What happened to a pod and its containers, in order: told from its conditions, from what its containers' states remember, and from its events, which last an hour.
import { Tone, condition, span } from "./format";
import { eventTime } from "./events";
import type { Obj } from "./watch";

export interface Moment { at: number; who: string; what: string; text: string; tone: Tone }

// What is said of the same second happened in this order; what is not named here, in the place of "".
const ORDER = ["Created", "Unschedulable", "FailedScheduling", "Scheduled", "Prepared", "Pulling", "Pulled", "Killing", "", "Unhealthy", "Ready", "Not ready", "BackOff"];
const rank = (what: string) => ORDER.indexOf(ORDER.includes(what) ? what : "");

// NEAR is how far apart two may say that the same happened: states and conditions know seconds only.
const NEAR = 1000;

export function history(pod: Obj, events: Obj[]): Moment[] {
  const st = pod.status ?? {}, made = Date.parse(pod.metadata.creationTimestamp);
  const runs = [...(st.initContainerStatuses ?? []), ...(st.containerStatuses ?? []), ...(st.ephemeralContainerStatuses ?? [])].flatMap(ofContainer);
  const all: Moment[] = [
    { at: made, who: "", what: "Created", text: "", tone: "idle" }, ...ofConditions(pod, runs), ...events.flatMap((e) => ofEvent(e, runs)), ...runs,
  ];
  if (pod.metadata.deletionTimestamp) {
    const grace = (pod.metadata.deletionGracePeriodSeconds ?? 0) * 1000;
    all.push({ at: Date.parse(pod.metadata.deletionTimestamp) - grace, who: "", what: "Deleted", text: `with ${span(grace)} to end by itself`, tone: "wait" });
  }
  const second = (m: Moment) => Math.floor(m.at / 1000);
  return all.filter((m) => !Number.isNaN(m.at)).sort((a, b) => second(a) - second(b) || rank(a.what) - rank(b.what));
}

// ofContainer tells of the run before and of this one; how many there were, the count of restarts says.
function ofContainer(c: any): Moment[] {
  const out: Moment[] = [], states = [c.lastState, c.state].filter((s) => s?.running || s?.terminated);
  states.forEach((s: any) => {
    const run = s.running ?? s.terminated;
    // While it waits for its next run, the last one is the one that was counted.
    const restart = c.restartCount - (s === c.lastState && states.length > 1 ? 1 : 0);
    if (run.startedAt) out.push({ at: Date.parse(run.startedAt), who: c.name, what: "Started", text: restart > 0 ? `restart ${restart}` : "", tone: "good" });
    if (s.terminated) out.push({ at: Date.parse(run.finishedAt), who: c.name, what: "Ended", text: ending(s.terminated), tone: run.exitCode || run.signal ? "bad" : "idle" });
  });
  return out;
}

function ending(t: any): string {
  const ran = Date.parse(t.finishedAt) - Date.parse(t.startedAt);
  return [t.reason, t.signal ? `signal ${t.signal}` : `exit code ${t.exitCode}`, ran >= 0 && `after ${span(ran)}`, t.message?.trim()].filter(Boolean).join(", ");
}

function ofConditions(pod: Obj, runs: Moment[]): Moment[] {
  const out: Moment[] = [];
  const tell = (type: string, status: string, what: string, text: (c: any) => string, tone: Tone) => {
    const c = condition(pod, type);
    if (c?.status === status) out.push({ at: Date.parse(c.lastTransitionTime), who: "", what, text: text(c), tone });
  };
  const said = (c: any) => c.message || c.reason || "";
  tell("PodScheduled", "True", "Scheduled", () => `to ${pod.spec.nodeName}`, "good");
  tell("PodScheduled", "False", condition(pod, "PodScheduled")?.reason || "Unschedulable", said, "bad");
  tell("PodReadyToStartContainers", "True", "Prepared", () => [pod.status?.podIP, "its volumes and network are there"].filter(Boolean).join(": "), "good");
  tell("Ready", "True", "Ready", () => "", "good");
  const first = Math.min(...runs.map((r) => r.at)), unready = condition(pod, "Ready");
  if (unready && unready.reason !== "PodCompleted" && Date.parse(unready.lastTransitionTime) > first) tell("Ready", "False", "Not ready", said, "wait");
  tell("DisruptionTarget", "True", "Disrupted", said, "bad");
  return out;
}

// What conditions and states tell better.
const TOLD = new Set(["Scheduled", "Created"]);

function ofEvent(e: Obj, runs: Moment[]): Moment[] {
  if (TOLD.has(e.reason)) return [];
  const who = /\{(.+)\}$/.exec(e.involvedObject?.fieldPath ?? "")?.[1] ?? "", first = Date.parse(e.firstTimestamp || eventTime(e)), last = Date.parse(eventTime(e));
  if (e.reason === "Started") { // the first run, when the states remember only later ones
    const known = runs.some((r) => r.who === who && r.what === "Started" && Math.abs(r.at - first) <= NEAR);
    return known ? [] : [{ at: first, who, what: "Started", text: "", tone: "good" }];
  }
  const count = e.series?.count ?? e.count ?? 1;
  const often = count > 1 ? ` (${count} times in ${span(last - first)})` : "";
  return [{ at: last, who, what: e.reason, text: e.message + often, tone: e.type === "Warning" ? "bad" : "idle" }];
}
