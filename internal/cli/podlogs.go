package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"skiff.dev/skiff/internal/kubelet/logs"
)

// podLogs is a search through the logs of the pods that there are, each asked for by itself: it takes no right but those to the pods and their logs.
type podLogs struct {
	*logSearch
	cs kubernetes.Interface

	warnings io.Writer

	mu sync.Mutex // of w
	w  *bufio.Writer
}

// containerRun is one life of a container.
type containerRun struct {
	line     logs.Line // what its lines have in common
	id       string    // the runtime's
	previous bool      // not the container's newest
	running  bool

	// Until where it has been read: a time, and how many lines of that time.
	read  time.Time
	lines int
}

func (r *containerRun) String() string {
	return fmt.Sprintf("container %s/%s/%s", r.line.Namespace, r.line.Pod, r.line.Container)
}

// runsOf a pod's containers that have written, or may have: the newest of each and the one before it.
func runsOf(pod *corev1.Pod) (out []*containerRun) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			c := &list[i]
			run := func(id string, restart int32) *containerRun {
				r := &containerRun{id: id, line: logs.Line{Namespace: pod.Namespace, Pod: pod.Name, UID: string(pod.UID), Container: c.Name, Restart: int(restart)}}
				out = append(out, r)
				return r
			}
			before, now := c.LastTerminationState.Terminated, c.State
			switch {
			case now.Waiting != nil && before != nil: // its next life has not begun, so this is the newest
				run(before.ContainerID, c.RestartCount)
				continue
			case before != nil:
				run(before.ContainerID, c.RestartCount-1).previous = true
			}
			switch {
			case now.Running != nil:
				run(c.ContainerID, c.RestartCount).running = true
			case now.Terminated != nil && c.ContainerID != "":
				run(c.ContainerID, c.RestartCount)
			}
		}
	}
	return out
}

func (p *podLogs) list(o *metav1.ListOptions) {
	o.LabelSelector = p.selector
	if p.pod != "" {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, p.pod).String()
	}
}

// run shows what has been written, and then, when following, what is.
func (p *podLogs) run(ctx context.Context) error {
	var o metav1.ListOptions
	p.list(&o)
	pods, err := p.cs.CoreV1().Pods(p.namespace).List(ctx, o)
	if err != nil {
		return err
	}
	known := map[string]*containerRun{}
	var all []*logSource
	for i := range pods.Items {
		for _, r := range runsOf(&pods.Items[i]) {
			known[r.id] = r
			n := newLogSource(r.String())
			all = append(all, n)
			go n.fill(func() error {
				return p.read(ctx, r, false, func(l *logs.Line) error {
					select {
					case n.lines <- *l:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
			})
		}
	}
	p.w = bufio.NewWriter(p.out())
	if err := mergeLogs(all, func(l *logs.Line) error { return p.print(p.w, l) }, p.w.Flush); err != nil {
		return err
	}
	err = unread(all, "containers", p.warnings)
	if p.follow {
		err = errors.Join(err, p.followAll(ctx, known))
	}
	return err
}

// longestLine that is shown as one; what is longer comes in pieces.
const longestLine = 256 << 10

// read the lines of a run that have not been read yet. Logs of pods or runs that are there no more have none.
func (p *podLogs) read(ctx context.Context, r *containerRun, follow bool, found func(*logs.Line) error) error {
	o := &corev1.PodLogOptions{Container: r.line.Container, Previous: r.previous, Timestamps: true, Follow: follow}
	since := p.from
	if r.read.After(since) {
		since = r.read
	}
	if !since.IsZero() {
		o.SinceTime = &metav1.Time{Time: since} // goes out in whole seconds
	}
	body, err := p.cs.CoreV1().Pods(r.line.Namespace).GetLogs(r.line.Pod, o).Stream(ctx)
	if apierrors.IsNotFound(err) || apierrors.IsBadRequest(err) && r.previous {
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	from, skip := r.read, r.lines
	return stampedLines(body, func(at time.Time, text []byte) error {
		switch {
		case at.Before(p.from), at.Before(from):
			return nil
		case at.Equal(from) && skip > 0:
			skip--
			return nil
		case at.Equal(r.read):
			r.lines++
		case at.After(r.read): // a container's two streams are not quite in order
			r.read, r.lines = at, 1
		}
		if !p.match.Match(text) {
			return nil
		}
		l := r.line
		l.Time, l.Text = at, string(text)
		return found(&l)
	})
}

// stampedLines reads a log in which each line begins with its time.
func stampedLines(from io.Reader, each func(at time.Time, text []byte) error) error {
	in := bufio.NewReaderSize(from, longestLine)
	var at time.Time
	for within := false; ; {
		text, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if len(text) > 0 && !within {
			stamp, rest, _ := bytes.Cut(text, []byte(" "))
			t, wrong := time.Parse(time.RFC3339Nano, string(stamp))
			if wrong != nil {
				return fmt.Errorf("a line without a time: %.60q", text)
			}
			at, text = t, rest
		}
		if len(text) > 0 {
			if err := each(at, bytes.TrimSuffix(text, []byte("\n"))); err != nil {
				return err
			}
		}
		if within = errors.Is(err, bufio.ErrBufferFull); err != nil && !within {
			return nil
		}
	}
}

// followAll goes on where the known runs were read to, and begins with those that come, until ctx ends.
func (p *podLogs) followAll(ctx context.Context, known map[string]*containerRun) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	informer := cache.NewSharedIndexInformer(cache.NewFilteredListWatchFromClient(p.cs.CoreV1().RESTClient(), "pods", p.namespace, p.list), &corev1.Pod{}, 0, nil)
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if apierrors.IsForbidden(err) {
			cancel(err)
		}
	}); err != nil {
		return err
	}
	var following sync.WaitGroup
	begun := map[string]bool{} // only the informer's goroutine touches it and known
	see := func(o any) {
		pod, ok := o.(*corev1.Pod)
		if !ok {
			return
		}
		for _, r := range runsOf(pod) {
			if begun[r.id] {
				continue
			}
			begun[r.id] = true
			if before := known[r.id]; before != nil {
				if !before.running {
					continue // it has been read to its end
				}
				r.read, r.lines = before.read, before.lines
			}
			following.Go(func() {
				if err := p.followRun(ctx, r, informer.GetStore()); err != nil {
					cancel(err)
				}
			})
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }}); err != nil {
		return err
	}
	informer.RunWithContext(ctx)
	following.Wait()
	return context.Cause(ctx)
}

// followRun until it has ended. What cannot be read, or is cut off, is asked for again. The error is of the output.
func (p *podLogs) followRun(ctx context.Context, r *containerRun, pods cache.Store) error {
	const soon, late = time.Second, 30 * time.Second
	for wait := soon; ; {
		var failed error
		err := p.read(ctx, r, r.running, func(l *logs.Line) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			failed = errors.Join(p.print(p.w, l), p.w.Flush())
			return failed
		})
		switch {
		case failed != nil || ctx.Err() != nil:
			return failed
		case err == nil && !r.running:
			return nil
		case err == nil:
			wait = soon
		case wait == soon:
			fmt.Fprintf(p.warnings, "%s: %v; trying again\n", r, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err != nil {
			wait = min(2*wait, late)
		}
		now := lifeOf(pods, r)
		if now == nil {
			return nil
		}
		r.running, r.previous = now.running, now.previous
	}
}

// lifeOf is what is known of a run now; nil if it is there no more.
func lifeOf(pods cache.Store, r *containerRun) *containerRun {
	o, _, _ := pods.GetByKey(r.line.Namespace + "/" + r.line.Pod)
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	for _, now := range runsOf(pod) {
		if now.id == r.id {
			return now
		}
	}
	return nil
}
