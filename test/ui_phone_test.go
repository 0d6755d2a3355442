package test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/device"

	"skiff.dev/skiff/test/cluster"
)

const phoneWidth, phoneHeight = 390, 844

// uiPhone walks every page at a phone's width, in both colours: nothing is wider than the screen, no button is outside it or too small for a finger.
func uiPhone(b *browser) {
	node := strings.TrimSpace(b.c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	pages := []string{
		"", "workloads", "workload/Deployment/default/web", "workload/Deployment/default/web/logs", "workload/Deployment/default/web/history", "workload/Deployment/default/web/events", "workload/Deployment/default/web/yaml",
		"pods", "pod/default/broken", "pod/default/greedy", "pod/default/talker/logs", "pod/default/talker/shell", "pod/default/talker/metrics", "pod/default/talker/events", "pod/default/talker/yaml",
		"services", "service/default/kubernetes", "nodes", "node/" + node, "node/" + node + "/events", "volumes", "addons", "resources", "list/core/v1/configmaps",
		"object/core/v1/namespaces/-/default", "no/such/page",
	}
	b.do(chromedp.Emulate(device.Info{Width: phoneWidth, Height: phoneHeight, Scale: 2, Mobile: true, Touch: true}))
	defer func() {
		b.do(chromedp.EmulateReset(), chromedp.EmulateViewport(1280, 800), chromedp.Evaluate(`document.documentElement.dataset.theme = "auto"`, nil))
	}()
	for _, theme := range []string{"light", "dark"} {
		b.do(chromedp.Evaluate(`document.documentElement.dataset.theme = "`+theme+`"; 1`, nil))
		for _, page := range pages {
			b.goTo(page)
			b.settles()
			var faults []string
			if b.do(chromedp.Evaluate(tooWide, &faults)); len(faults) > 0 {
				b.t.Errorf("#/%s in %s, %d wide:\n%s", page, theme, phoneWidth, strings.Join(faults, "\n"))
			}
			b.keepPicture(theme + "-" + strings.ReplaceAll(page, "/", "-"))
		}
	}
}

// tooWide names what reaches out of the screen without being in something that scrolls, and what a finger would not hit.
const tooWide = `(() => {
	const out = [], root = document.scrollingElement, main = document.querySelector("main"), name = e => e.tagName + "." + e.className + " " + e.textContent.slice(0, 30);
	for (const e of [root, main]) if (e.scrollWidth > Math.ceil(e.clientWidth)) out.push(name(e) + " scrolls sideways: " + e.scrollWidth + " of " + e.clientWidth);
	if (innerWidth > 390) out.push("the page is laid out " + innerWidth + " wide");
	for (const e of document.querySelectorAll("button, a, input, select, h1, h2, h3, p, dd, li")) {
		const r = e.getBoundingClientRect();
		if (!r.width || e.closest(".grid, .tabs, .cm-editor, .xterm, pre, .side")) continue;
		if (r.right > innerWidth + 1 || r.left < -1) out.push(name(e) + " is cut: " + r.left + " to " + r.right);
		if (e.matches("button:not(.linklike), select, main input:not([type=checkbox])") && r.height < 34) out.push(name(e) + " is only " + r.height + " high");
	}
	return out;
})()`

// settles waits until nothing says that it is loading, and what the page holds stays the same for a moment.
func (b *browser) settles() {
	b.t.Helper()
	before := ""
	cluster.Eventually(b.t, func() error {
		now := ""
		b.do(chromedp.Sleep(120*time.Millisecond), chromedp.Evaluate(`document.querySelector("main").innerText.replace(/\d+[smh]\b/g, "")`, &now))
		same := now == before && !strings.Contains(now, "Loading…")
		if before = now; !same {
			return errors.New("the page still changes")
		}
		return nil
	})
}

// keepPicture keeps what the page looks like below $SKIFF_UI_PICTURES, for people who look at it.
func (b *browser) keepPicture(name string) {
	dir := os.Getenv("SKIFF_UI_PICTURES")
	if dir == "" {
		return
	}
	var picture []byte
	b.do(chromedp.CaptureScreenshot(&picture))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600); err != nil {
		b.t.Error(err)
	}
}
