package fairness

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	apischema "k8s.io/apimachinery/pkg/runtime/schema"
)

// Install serves, for people, what waits for what: under upstream's paths and in its columns.
func (c *Controller) Install(m *http.ServeMux) {
	for name, dump := range map[string]func(*http.Request) [][]string{
		"dump_priority_levels": c.dumpLevels, "dump_queues": c.dumpQueues, "dump_requests": c.dumpRequests,
	} {
		m.HandleFunc("GET /debug/api_priority_and_fairness/"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			writeRows(w, dump(r))
		})
	}
}

func writeRows(w io.Writer, rows [][]string) {
	tab := tabwriter.NewWriter(w, 8, 0, 1, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(tab, strings.Join(row, ",\t"))
	}
	_ = tab.Flush() // a reader that went away
}

func row(cells ...any) []string {
	out := make([]string, len(cells))
	for i, cell := range cells {
		out[i] = fmt.Sprint(cell)
	}
	return out
}

// dumpLevels is a row a level. What came of its requests is what the metrics counted.
func (c *Controller) dumpLevels(*http.Request) [][]string {
	out := [][]string{{
		"PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests", "DispatchedRequests", "RejectedRequests",
		"TimedoutRequests", "CancelledRequests",
	}}
	executing, dispatched, refused := byLevel(c.figures.executing), byLevel(c.figures.dispatched), byLevel(c.figures.rejected)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.levels)) {
		l, why := c.levels[name], refused[name]
		active := 0
		for _, q := range l.queues {
			if len(q.waiters) > 0 {
				active++
			}
		}
		at := executing[name][""]
		out = append(out, row(name, active, l.waiting == 0 && at == 0, false, l.waiting, at, dispatched[name][""],
			why["queue-full"]+why["concurrency-limit"], why["time-out"], why["cancelled"]))
	}
	return out
}

// byLevel adds a metric's values up by priority level and reason.
func byLevel(metric prometheus.Collector) map[string]map[string]int {
	values := make(chan prometheus.Metric)
	go func() {
		metric.Collect(values)
		close(values)
	}()
	out := map[string]map[string]int{}
	for v := range values {
		var m dto.Metric
		if v.Write(&m) != nil {
			continue
		}
		level, reason := "", ""
		for _, l := range m.Label {
			switch l.GetName() {
			case "priority_level":
				level = l.GetValue()
			case "reason":
				reason = l.GetValue()
			}
		}
		if out[level] == nil {
			out[level] = map[string]int{}
		}
		out[level][reason] += int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
	}
	return out
}

// dumpQueues is a row a queue. Work is counted in seats here, and those of requests that never waited are in no queue.
func (c *Controller) dumpQueues(*http.Request) [][]string {
	out := [][]string{{
		"PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR", "InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum",
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.levels)) {
		l := c.levels[name]
		for i, q := range l.queues {
			executing, inUse, wanted := 0, 0, 0
			for _, p := range l.seated {
				if p.from == q {
					executing++
					inUse += p.seats
				}
			}
			for _, w := range q.waiters {
				wanted += w.pass.seats
			}
			out = append(out, row(name, i, len(q.waiters), executing, inUse, seatsOf(q.had), wanted, wanted, seatsOf(float64(wanted))))
		}
	}
	return out
}

func seatsOf(n float64) string { return fmt.Sprintf("%.8fss", n) }

// dumpRequests is a row a request that waits or has a seat; one of an exempt level has none.
func (c *Controller) dumpRequests(r *http.Request) [][]string {
	head := []string{
		"PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime", "InitialSeats", "FinalSeats", // so spelt upstream
		"AdditionalLatency", "StartTime",
	}
	details := r.URL.Query().Get("includeRequestDetails") != ""
	if details {
		head = append(head, "UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")
	}
	out := [][]string{head}
	add := func(l *level, queue, place int, p *Pass) {
		line := row(l.name, p.schema.name, queue, place, p.schema.distinguishes(p.request), moment(p.came), p.seats, 0, time.Duration(0), moment(p.since))
		if at := p.request; details {
			gv := apischema.GroupVersion{Group: at.GetAPIGroup(), Version: at.GetAPIVersion()}
			line = append(line, row(at.GetUser().GetName(), at.GetVerb(), at.GetPath(), at.GetNamespace(), at.GetName(), gv, at.GetResource(), at.GetSubresource())...)
		}
		out = append(out, line)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.levels)) {
		l := c.levels[name]
		for i, q := range l.queues {
			for place, w := range q.waiters {
				add(l, i, place, w.pass)
			}
		}
		for _, p := range l.seated {
			queue := -1
			if p.from != nil {
				queue = slices.Index(l.queues, p.from)
			}
			add(l, queue, -1, p)
		}
	}
	return out
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
