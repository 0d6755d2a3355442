// The terminal, loaded when somebody opens a shell.
import "./csp";
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";

// The channels of v5.channel.k8s.io: each message begins with its number.
const STDIN = 0, STDERR = 2, FAILURE = 3, SIZE = 4, CLOSE = 255;

export interface Open { dispose(): void }

export function open(box: HTMLElement, ws: WebSocket, ended: (why: string, opened: boolean) => void): Open {
  const dark = getComputedStyle(document.documentElement).colorScheme !== "light";
  const term = new Terminal({
    fontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace", fontSize: 13, cursorBlink: false, scrollback: 5000, screenReaderMode: false,
    theme: { background: "#0f1518", foreground: "#d7e0e2", cursor: "#4fd1c5", selectionBackground: dark ? "#33555a" : "#33555a" },
  });
  const fit = new FitAddon(), encode = new TextEncoder(), decode = new TextDecoder();
  term.loadAddon(fit);
  term.open(box);
  const send = (channel: number, text: string) => {
    if (ws.readyState !== WebSocket.OPEN) return;
    const bytes = encode.encode(text), message = new Uint8Array(bytes.length + 1);
    message[0] = channel;
    message.set(bytes, 1);
    ws.send(message);
  };
  const resize = new ResizeObserver(() => fit.fit());
  let why = "", opened = false;
  ws.binaryType = "arraybuffer";
  ws.onopen = () => {
    opened = true;
    resize.observe(box);
    fit.fit();
    send(SIZE, JSON.stringify({ Width: term.cols, Height: term.rows }));
    term.focus();
  };
  term.onResize(({ cols, rows }) => send(SIZE, JSON.stringify({ Width: cols, Height: rows })));
  term.onData((text) => send(STDIN, text));
  ws.onmessage = (e) => {
    const m = new Uint8Array(e.data as ArrayBuffer);
    if (m[0] === FAILURE) {
      const status = JSON.parse(decode.decode(m.subarray(1)) || "{}");
      why = status.status === "Success" ? "The shell has ended." : (status.message ?? "");
    } else if (m[0] <= STDERR) term.write(m.subarray(1));
    else if (m[0] === CLOSE) ws.close();
  };
  ws.onclose = (e) => ended(why || e.reason || "The connection has ended.", opened);
  return {
    dispose() {
      resize.disconnect();
      ws.onclose = null;
      ws.close();
      term.dispose();
    },
  };
}
