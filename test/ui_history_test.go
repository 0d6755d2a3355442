package test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"skiff.dev/skiff/test/cluster"
)

// moment is a line of a pod's history: what happened, to which container, and what is said of it.
type moment struct{ What, Who, Text string }

func (b *browser) history() (all []moment) {
	b.t.Helper()
	b.do(chromedp.Evaluate(`[...document.querySelectorAll(".history li")].map(e => ({What: e.querySelector("b").textContent, Who: e.querySelector("code")?.textContent.trim() ?? "",
		Text: e.querySelector("div > span")?.textContent.trim() ?? ""}))`, &all))
	return all
}

// uiHistory: a pod's page tells what happened to it and its containers, in order, as it happens; keys go through it.
func uiHistory(b *browser) {
	b.goTo("pod/default/talker")
	b.tells(moment{What: "Created"}, moment{What: "Scheduled", Text: "to "}, moment{What: "Prepared", Text: "its volumes and network"}, moment{What: "Started", Who: "c"}, moment{What: "Ready"})
	b.goTo("pod/default/broken")
	b.tells(moment{What: "Scheduled"}, moment{What: "Pulled", Who: "c", Text: "skiff.dev/web:1"}, moment{What: "Started", Who: "c", Text: "restart"}, moment{What: "Ended", Who: "c", Text: "Error, exit code 3"},
		moment{What: "BackOff", Who: "c", Text: "restarting failed container"})
	b.do(chromedp.Evaluate(`document.documentElement.dataset.theme = "dark"`, nil))
	b.keepPicture("history")
	b.do(chromedp.Evaluate(`document.documentElement.dataset.theme = "auto"`, nil))
	b.c.Apply(`
apiVersion: v1
kind: Event
metadata: {name: hostile.2, namespace: default}
involvedObject: {kind: Pod, name: broken, namespace: default, uid: ` + b.c.Kubectl("get", "pod", "broken", "-o", "jsonpath={.metadata.uid}") + `, fieldPath: 'spec.containers{` + hostile + `}'}
type: Warning
reason: Hostile
message: '` + hostile + `'
lastTimestamp: "2035-01-01T00:00:00Z"
`)
	b.tells(moment{What: "Hostile", Who: hostile, Text: hostile})
	chosen := func(want moment) {
		b.t.Helper()
		cluster.Eventually(b.t, func() error {
			var at int
			b.do(chromedp.Evaluate(`document.querySelector(".track u") ? [...document.querySelectorAll(".history li")].findIndex(e => e.ariaSelected === "true") : -1`, &at))
			if all := b.history(); at < 0 || all[at].What != want.What {
				return fmt.Errorf("moment %d of %v is chosen, not %v", at, all, want)
			}
			return nil
		})
	}
	b.do(chromedp.KeyEvent("j"))
	chosen(moment{What: "Created"})
	b.do(chromedp.Focus(".history"), chromedp.KeyEvent(kb.ArrowDown))
	chosen(moment{What: "Scheduled"})
	b.do(chromedp.KeyEvent(kb.End))
	chosen(moment{What: "Hostile"})
	b.do(chromedp.KeyEvent("k"), chromedp.KeyEvent("j"), chromedp.KeyEvent(kb.Home))
	chosen(moment{What: "Created"})

	b.c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: short}
spec:
  restartPolicy: Never
  initContainers: [{name: first, image: "skiff.dev/web:1", command: [sh, -c, "true"]}]
  containers: [{name: c, image: "skiff.dev/web:1", command: [sh, -c, "sleep 1"]}]
`)
	b.goTo("pod/default/short")
	b.tells(moment{What: "Scheduled"}, moment{What: "Started", Who: "first"}, moment{What: "Ended", Who: "first", Text: "Completed, exit code 0"},
		moment{What: "Started", Who: "c"}, moment{What: "Ended", Who: "c", Text: "Completed, exit code 0, after "})
}

// tells waits until the page's history has all of these, in this order, perhaps with others between.
func (b *browser) tells(want ...moment) {
	b.t.Helper()
	cluster.Eventually(b.t, func() error {
		all := b.history()
		rest := all
		for _, w := range want {
			i := slices.IndexFunc(rest, func(m moment) bool { return m.What == w.What && m.Who == w.Who && strings.Contains(m.Text, w.Text) })
			if i < 0 {
				return fmt.Errorf("no %v, in this order, among %v", w, all)
			}
			rest = rest[i+1:]
		}
		return nil
	})
}
