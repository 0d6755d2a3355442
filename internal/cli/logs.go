package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/kubelet/logs"
)

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Search the logs of all pods on all nodes, those of deleted pods included",
		Long: `The lines that containers wrote, from all nodes, in the order of their times. Logs are kept for a day after their
pod is gone (--log-keep-hours and --log-keep-size of the node say how long and how much).

Whoever searches reads the logs of every namespace, and needs the right to get nodes/proxy. (For one pod that there
is, 'skiff kubectl logs' needs no more than pods/log of its namespace.)`,
		Example: `  skiff logs --search 'timeout|refused' --since 1h
  skiff logs -n shop --selector app=web --search '(?i)error' --follow
  skiff logs --selector job-name=import -o json`,
		Args: cobra.NoArgs,
	}
	s := logSearch{out: cmd.OutOrStdout}
	f := cmd.Flags()
	f.StringVar(&s.search, "search", "", "Regular expression (RE2) that lines must match; all lines if it isn't given")
	f.StringVarP(&s.selector, "selector", "l", "", "Label selector of the pods, by the labels they have or had last")
	f.StringVarP(&s.namespace, "namespace", "n", "", "Namespace of the pods; all if it isn't given")
	f.DurationVar(&s.since, "since", 0, "How far to look back, such as 30s, 5m or 3h; to the beginning if it isn't given")
	f.BoolVarP(&s.follow, "follow", "f", false, "Go on with what is being written, also by pods that start later")
	f.StringVarP(&s.output, "output", "o", "", "json: an object a line, for programs")
	return adminAction(cmd, config.Default(), func(ctx context.Context, a admin, _ []string) error {
		if err := s.check(); err != nil {
			return err
		}
		return s.run(ctx, a, cmd.ErrOrStderr())
	})
}

// logSearch is one search over all nodes.
type logSearch struct {
	search, selector, namespace, output string
	since                               time.Duration
	follow                              bool
	out                                 func() io.Writer
}

func (s *logSearch) check() error {
	if _, err := regexp.Compile(s.search); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	if _, err := labels.Parse(s.selector); err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	if s.since < 0 {
		return fmt.Errorf("since: %s is in the future; give a time such as 5m", s.since)
	}
	if s.output != "" && s.output != "json" {
		return fmt.Errorf("output: %q is not known; give json, or nothing", s.output)
	}
	return nil
}

func (s *logSearch) run(ctx context.Context, a admin, warnings io.Writer) error {
	var nodes corev1.NodeList
	if err := a.List(ctx, &nodes); err != nil {
		return err
	}
	cfg := rest.CopyConfig(a.rest)
	cfg.Timeout = 0 // a search may go on for ever
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("reach the cluster at %s: %w", a.rest.Host, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := make([]*nodeLogs, 0, len(nodes.Items))
	for i := range nodes.Items {
		n := &nodeLogs{node: nodes.Items[i].Name, lines: make(chan logs.Line, 64)}
		all = append(all, n)
		go func() {
			defer close(n.lines)
			n.err = n.read(ctx, s.request(cs, n.node))
		}()
	}
	out := bufio.NewWriter(s.out())
	err = mergeNodes(all, func(l *logs.Line) error { return s.print(out, l) }, out.Flush)
	if ctx.Err() != nil {
		return nil // Ctrl-C is how following ends
	}
	return errors.Join(err, unread(all, warnings))
}

// unread says of which nodes not everything was read.
func unread(all []*nodeLogs, warnings io.Writer) error {
	failed := 0
	for _, n := range all {
		if n.err != nil {
			failed++
			fmt.Fprintf(warnings, "node %s: %v\n", n.node, n.err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("the logs of %d of %d nodes could not be read in full", failed, len(all))
	}
	return nil
}

func (s *logSearch) request(cs *kubernetes.Clientset, node string) *rest.Request {
	r := cs.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("logs/search").
		Param("namespace", s.namespace).Param("labelSelector", s.selector).Param("search", s.search).Param("follow", strconv.FormatBool(s.follow))
	if s.since > 0 {
		r.Param("sinceTime", time.Now().Add(-s.since).UTC().Format(time.RFC3339Nano))
	}
	return r
}

func (s *logSearch) print(w io.Writer, l *logs.Line) error {
	if s.output == "json" {
		return json.NewEncoder(w).Encode(l)
	}
	_, err := fmt.Fprintf(w, "%s %s/%s/%s %s\n", l.Time.UTC().Format("2006-01-02T15:04:05.000Z"), l.Namespace, l.Pod, l.Container, l.Text)
	return err
}

// nodeLogs are the lines of one node.
type nodeLogs struct {
	node  string
	lines chan logs.Line
	err   error // once lines is closed
}

func (n *nodeLogs) read(ctx context.Context, r *rest.Request) error {
	body, err := r.Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	for in := json.NewDecoder(body); ; {
		var l logs.Line
		if err := in.Decode(&l); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case n.lines <- l:
		case <-ctx.Done():
			return nil
		}
	}
}

// mergeNodes hands out what the nodes have by its time; once each is at its end, or at what is new, lines come as they are written.
func mergeNodes(all []*nodeLogs, print func(*logs.Line) error, flush func() error) error {
	heads := make([]*logs.Line, len(all))
	next := func(i int) {
		heads[i] = nil
		if l, ok := <-all[i].lines; ok && !l.Live {
			heads[i] = &l
		}
	}
	for i := range all {
		next(i)
	}
	for {
		first := -1
		for i, l := range heads {
			if l != nil && (first < 0 || l.Time.Before(heads[first].Time)) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		if err := print(heads[first]); err != nil {
			return err
		}
		next(first)
	}
	if err := flush(); err != nil {
		return err
	}
	return printLive(all, print, flush)
}

func printLive(all []*nodeLogs, print func(*logs.Line) error, flush func() error) error {
	together := make(chan logs.Line)
	var open sync.WaitGroup
	for _, n := range all {
		open.Go(func() {
			for l := range n.lines {
				together <- l
			}
		})
	}
	go func() {
		open.Wait()
		close(together)
	}()
	for l := range together {
		if err := errors.Join(print(&l), flush()); err != nil {
			go func() { // the readers end with the caller's context
				for range together {
				}
			}()
			return err
		}
	}
	return nil
}
