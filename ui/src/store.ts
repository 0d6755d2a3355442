// A value that components follow.
import { useEffect, useState } from "preact/hooks";

export interface Store<T> {
  get(): T;
  set(v: T): void;
  follow(f: () => void): () => void;
}

export function store<T>(value: T): Store<T> {
  const followers = new Set<() => void>();
  return {
    get: () => value,
    set(v) {
      if (v === value) return;
      value = v;
      for (const f of [...followers]) f();
    },
    follow(f) {
      followers.add(f);
      return () => followers.delete(f);
    },
  };
}

// kept is a store that outlives the page.
export function kept(key: string, initial: string): Store<string> {
  const s = store(localStorage.getItem(key) ?? initial);
  s.follow(() => localStorage.setItem(key, s.get()));
  return s;
}

export function useStore<T>(s: Store<T>): T {
  const [, poke] = useState(0), drawn = s.get();
  useEffect(() => {
    const look = () => poke((n) => n + 1);
    if (s.get() !== drawn) look(); // it was set between the drawing and now
    return s.follow(look);
  }, [s]);
  return drawn;
}

// useNow makes a component draw itself again every few seconds, for ages.
export function useNow(ms = 5000): number {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    const id = setInterval(() => document.hidden || set(Date.now()), ms);
    return () => clearInterval(id);
  }, [ms]);
  return now;
}
