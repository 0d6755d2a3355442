import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "@xterm/xterm/css/xterm.css";
import "./style.css";
import { resume } from "./api";
import { App } from "./app";
import { say } from "./parts";
import { redeemLink } from "./signin";

await redeemLink();
await resume().catch((e) => say((e as Error).message, true));
render(<App />, document.body);
