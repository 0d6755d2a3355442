package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/polymorphichelpers"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/kubelet/logs"
)

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs [TYPE/NAME]",
		Short: "Search the logs of all pods on all nodes, those of deleted pods included",
		Long: `The lines that containers wrote, from all nodes, in the order of their times: of all pods, of a namespace's, of those that
a selector finds, or of one workload's (TYPE/NAME; in the namespace default unless -n names another). Logs are kept for a
day after their pod is gone (--log-keep-hours and --log-keep-size of the node say how long and how much).

Whoever may get nodes/proxy searches the nodes. Who may not is shown the logs of the pods that there are, wherever
the right to list and watch pods and to get pods/log goes: in the namespace of -n, as a rule.`,
		Example: `  skiff logs --search 'timeout|refused' --since 1h
  skiff logs -n shop deployment/web --follow
  skiff logs -n shop --selector app=web --search '(?i)error' --follow
  skiff logs --selector job-name=import -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	s := logSearch{out: cmd.OutOrStdout}
	f := cmd.Flags()
	f.StringVar(&s.search, "search", "", "Regular expression (RE2) that lines must match; all lines if it isn't given")
	f.StringVarP(&s.selector, "selector", "l", "", "Label selector of the pods, by the labels they have or had last")
	f.StringVarP(&s.namespace, "namespace", "n", "", "Namespace of the pods; all if it isn't given")
	f.DurationVar(&s.since, "since", 0, "How far to look back, such as 30s, 5m or 3h; to the beginning if it isn't given")
	f.BoolVarP(&s.follow, "follow", "f", false, "Go on with what is being written, also by pods that start later")
	f.StringVarP(&s.output, "output", "o", "", "json: an object a line, for programs")
	return adminAction(cmd, config.Default(), func(ctx context.Context, a admin, args []string) error {
		if err := s.check(args); err != nil {
			return err
		}
		return s.run(ctx, a, args, cmd.ErrOrStderr())
	})
}

// logSearch is one search over all nodes, or over the pods of a namespace.
type logSearch struct {
	search, selector, namespace, output string
	pod                                 string // alone; empty: all
	since                               time.Duration
	follow                              bool
	out                                 func() io.Writer
	printed                             int // lines
	match                               *regexp.Regexp
	from                                time.Time
}

func (s *logSearch) check(args []string) (err error) {
	if s.match, err = regexp.Compile(s.search); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	if len(args) > 0 && s.selector != "" {
		return fmt.Errorf("selector: %s has its own", args[0])
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
	if s.since > 0 {
		s.from = time.Now().Add(-s.since)
	}
	return nil
}

func (s *logSearch) run(ctx context.Context, a admin, args []string, warnings io.Writer) error {
	cfg := rest.CopyConfig(a.rest)
	cfg.Timeout, cfg.QPS = 0, -1 // a search may go on for ever, and asks for many logs at once
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("reach the cluster at %s: %w", a.rest.Host, err)
	}
	if len(args) > 0 {
		if err := s.narrow(ctx, a, args[0]); err != nil {
			return err
		}
	}
	everything, err := cs.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Version: "v1", Resource: "nodes", Subresource: "proxy"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("ask whether the nodes' logs may be read: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if everything.Status.Allowed {
		err = s.overNodes(ctx, a, cs, warnings)
	} else {
		fmt.Fprintln(warnings, "pods that are gone are not searched: that takes the right to get nodes/proxy")
		err = (&podLogs{logSearch: s, cs: cs, warnings: warnings}).run(ctx)
	}
	if ctx.Err() != nil {
		return nil // Ctrl-C is how following ends
	}
	if err == nil && s.printed == 0 && s.pod != "" {
		return s.missed(ctx, a)
	}
	return err
}

// missed says why there is nothing of a pod that somebody named, unless it is there and silent.
func (s *logSearch) missed(ctx context.Context, a admin) error {
	err := a.Get(ctx, crclient.ObjectKey{Namespace: s.namespace, Name: s.pod}, &corev1.Pod{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no pod %s in the namespace %s, and no line of a former one; a workload is given as TYPE/NAME", s.pod, s.namespace)
	}
	return err
}

// narrow the search to a workload's pods, or to one pod.
func (s *logSearch) narrow(ctx context.Context, a admin, workload string) error {
	kind, name, typed := strings.Cut(workload, "/")
	if !typed {
		kind, name = "pod", workload
	}
	if s.namespace == "" {
		s.namespace = metav1.NamespaceDefault
	}
	var object crclient.Object
	for _, row := range api.NewTable().All() {
		if row.Namespaced && (kind == row.Plural || strings.EqualFold(kind, row.Kind) || slices.Contains(row.Short, kind)) {
			object = row.New()
			break
		}
	}
	if object == nil || name == "" {
		return fmt.Errorf("%s: no workload is called that; give TYPE/NAME, such as deployment/web, or the name of a pod", workload)
	}
	if _, is := object.(*corev1.Pod); is {
		s.pod = name // which may be gone
		return nil
	}
	if err := a.Get(ctx, crclient.ObjectKey{Namespace: s.namespace, Name: name}, object); err != nil {
		return err
	}
	_, selector, err := polymorphichelpers.SelectorsForObject(object)
	if err != nil {
		return fmt.Errorf("%s: %w", workload, err)
	}
	s.selector = selector.String()
	return nil
}

// overNodes asks each node.
func (s *logSearch) overNodes(ctx context.Context, a admin, cs *kubernetes.Clientset, warnings io.Writer) error {
	var nodes corev1.NodeList
	if err := a.List(ctx, &nodes); err != nil {
		return err
	}
	all := make([]*logSource, 0, len(nodes.Items))
	for i := range nodes.Items {
		n := newLogSource("node " + nodes.Items[i].Name)
		all = append(all, n)
		r := s.request(cs, nodes.Items[i].Name)
		go n.fill(func() error { return s.readNode(ctx, r, n.lines) })
	}
	out := bufio.NewWriter(s.out())
	err := mergeLogs(all, func(l *logs.Line) error { return s.print(out, l) }, out.Flush)
	return errors.Join(err, unread(all, "nodes", warnings))
}

// unread says of which nodes, or containers, not everything was read.
func unread(all []*logSource, what string, warnings io.Writer) error {
	failed := 0
	for _, n := range all {
		if n.err != nil {
			failed++
			fmt.Fprintf(warnings, "%s: %v\n", n.name, n.err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("the logs of %d of %d %s could not be read in full", failed, len(all), what)
	}
	return nil
}

func (s *logSearch) request(cs *kubernetes.Clientset, node string) *rest.Request {
	r := cs.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("logs/search").
		Param("namespace", s.namespace).Param("labelSelector", s.selector).Param("search", s.search).Param("follow", strconv.FormatBool(s.follow))
	if !s.from.IsZero() {
		r.Param("sinceTime", s.from.UTC().Format(time.RFC3339Nano))
	}
	return r
}

func (s *logSearch) print(w io.Writer, l *logs.Line) error {
	s.printed++
	if s.output == "json" {
		return json.NewEncoder(w).Encode(l)
	}
	_, err := fmt.Fprintf(w, "%s %s/%s/%s %s\n", l.Time.UTC().Format("2006-01-02T15:04:05.000Z"), l.Namespace, l.Pod, l.Container, l.Text)
	return err
}

// logSource is where lines come from, those of a time before in its order.
type logSource struct {
	name  string
	lines chan logs.Line
	err   error // once lines is closed
}

func newLogSource(name string) *logSource {
	return &logSource{name: name, lines: make(chan logs.Line, 64)}
}

func (n *logSource) fill(read func() error) {
	defer close(n.lines)
	n.err = read()
}

func (s *logSearch) readNode(ctx context.Context, r *rest.Request, to chan<- logs.Line) error {
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
		if s.pod != "" && l.Pod != s.pod && !l.Live {
			continue
		}
		select {
		case to <- l:
		case <-ctx.Done():
			return nil
		}
	}
}

// mergeLogs hands out what the sources have by its time; once each is at its end, or at what is new, lines come as they are written.
func mergeLogs(all []*logSource, print func(*logs.Line) error, flush func() error) error {
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

func printLive(all []*logSource, print func(*logs.Line) error, flush func() error) error {
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
