package test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	watchtools "k8s.io/client-go/tools/watch"

	"skiff.dev/skiff/test/cluster"
)

// ledger is what a server has acknowledged: the last number written to each ConfigMap, and what is gone.
type ledger struct {
	mu      sync.Mutex
	numbers map[string]int
	gone    map[string]bool
	acks    int
}

func (l *ledger) note(name string, number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers[name] = number
	l.acks++
}

// deleting notes that an object may be gone from now on, whether or not an answer comes.
func (l *ledger) deleting(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.numbers, name)
}

func (l *ledger) deleted(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone[name] = true
	l.acks++
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// check compares a server's ConfigMaps with what was acknowledged. A write whose answer never came may or may not be there.
func (l *ledger) check(t *testing.T, maps typed.ConfigMapInterface) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	list, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, m := range list.Items {
		if n, err := strconv.Atoi(m.Data["n"]); err == nil {
			found[m.Name] = n
		}
	}
	for name, want := range l.numbers {
		if got, there := found[name]; !there || got < want {
			t.Errorf("%s: number %d was acknowledged; there: %v, number %d", name, want, there, got)
		}
	}
	for name := range l.gone {
		if _, there := found[name]; there {
			t.Errorf("%s: its deletion was acknowledged, and it is there", name)
		}
	}
	t.Logf("%d writes were acknowledged, %d objects stay", l.acks, len(l.numbers))
}

// writers create, change and delete ConfigMaps until stop, which waits for them. What fails is tried no further.
func writers(t *testing.T, cs kubernetes.Interface, l *ledger, round string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	maps := cs.CoreV1().ConfigMaps("default")
	for w := range 8 {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("%s-%d-%d", round, w, i)
				write := func(n int) bool {
					m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": strconv.Itoa(n)}}
					var err error
					if n == 0 {
						_, err = maps.Create(ctx, m, metav1.CreateOptions{})
					} else {
						_, err = maps.Update(ctx, m, metav1.UpdateOptions{})
					}
					if err == nil {
						l.note(name, n)
					}
					return err == nil
				}
				if !write(0) || !write(1) || !write(2) {
					continue
				}
				if i%3 != 0 {
					continue
				}
				l.deleting(name)
				if maps.Delete(ctx, name, metav1.DeleteOptions{}) == nil {
					l.deleted(name)
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// acknowledge waits until so many more writes have been acknowledged.
func (l *ledger) acknowledge(t *testing.T, more int) {
	t.Helper()
	enough := l.count() + more
	becomes(t, "writes to be acknowledged", func() bool { return l.count() >= enough })
}

func newLedger() *ledger { return &ledger{numbers: map[string]int{}, gone: map[string]bool{}} }

// TestNothingAcknowledgedIsLost: a server that is killed under load has, when it is started again, all it said it had.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler")
	c.Server()
	l := newLedger()
	for round := range 3 {
		stop := writers(t, c.Client(), l, fmt.Sprintf("round-%d", round))
		l.acknowledge(t, 300)
		c.Kill()
		stop()
		c.Server()
		l.check(t, c.Client().CoreV1().ConfigMaps("default"))
	}
}

// TestEtcdStops: an etcd that hangs, and one that dies, under load. Requests fail in bounded time, what memory has is read, watches go on when it is back.
func TestEtcdStops(t *testing.T) {
	t.Parallel()
	bin := cluster.GoBuild(t, "go.etcd.io/etcd/server/v3")
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--etcd-endpoints", etcdURL)
	etcd := &etcdServer{t: t, c: c, bin: bin, data: filepath.Join(t.TempDir(), "etcd")}
	etcd.start()
	t.Cleanup(func() { etcd.kill() })
	c.Server()
	l, maps := newLedger(), c.Client().CoreV1().ConfigMaps("default")
	seen, stopWatching := follow(t, maps)
	defer stopWatching()
	for _, fault := range []struct {
		name       string
		away, back func()
	}{
		{"hangs", func() { etcd.signal(syscall.SIGSTOP) }, func() { etcd.signal(syscall.SIGCONT) }},
		{"dies", etcd.kill, etcd.start},
	} {
		t.Run(fault.name, func(t *testing.T) {
			stop := writers(t, c.Client(), l, fault.name)
			l.acknowledge(t, 200)
			fault.away()
			withoutEtcd(t, maps)
			stop()
			fault.back()
			last := fault.name + "-last"
			becomes(t, "writes", func() bool {
				_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: last}}, metav1.CreateOptions{})
				return err == nil || apierrors.IsAlreadyExists(err)
			})
			becomes(t, "the watch to go on", func() bool { return seen(last) })
			l.check(t, maps)
		})
	}
}

func (e *etcdServer) signal(s syscall.Signal) {
	e.t.Helper()
	if err := e.cmd.Process.Signal(s); err != nil {
		e.t.Fatal(err)
	}
}

// withoutEtcd checks what a server does that has lost its etcd.
func withoutEtcd(t *testing.T, maps typed.ConfigMapInterface) {
	t.Helper()
	const bound = 40 * time.Second
	bounded := func(what string, do func(context.Context) error) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), bound+10*time.Second)
		defer cancel()
		err := do(ctx)
		took := time.Since(began).Round(time.Millisecond)
		status, is := err.(apierrors.APIStatus)
		if !is || status.Status().Code < 500 || took > bound {
			t.Errorf("%s without etcd: %v after %s", what, err, took)
		}
		t.Logf("%s without etcd failed after %s: %v", what, took, err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		bounded("a write", func(ctx context.Context) error {
			_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "never-"}}, metav1.CreateOptions{})
			return err
		})
	})
	both.Go(func() {
		bounded("a consistent read", func(ctx context.Context) error {
			_, err := maps.List(ctx, metav1.ListOptions{})
			return err
		})
	})
	began := time.Now()
	if list, err := maps.List(t.Context(), metav1.ListOptions{ResourceVersion: "0"}); err != nil || len(list.Items) == 0 || time.Since(began) > 5*time.Second {
		t.Errorf("a read from memory without etcd: %v after %s", err, time.Since(began))
	}
	if _, err := maps.Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{ResourceVersion: "0"}); err != nil {
		t.Errorf("a get from memory without etcd: %v", err)
	}
	both.Wait()
}

// follow watches ConfigMaps as client-go's retrying watcher does; seen says whether one has been added.
func follow(t *testing.T, maps typed.ConfigMapInterface) (seen func(string) bool, stop func()) {
	t.Helper()
	list, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := watchtools.NewRetryWatcherWithContext(t.Context(), list.ResourceVersion, onlyWatch{maps})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	added := map[string]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if m, ok := e.Object.(*corev1.ConfigMap); ok && e.Type == watch.Added {
				mu.Lock()
				added[m.Name] = true
				mu.Unlock()
			}
		}
	}()
	return func(name string) bool {
			mu.Lock()
			defer mu.Unlock()
			return added[name]
		}, func() {
			w.Stop()
			<-done
		}
}

type onlyWatch struct{ maps typed.ConfigMapInterface }

func (o onlyWatch) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	return o.maps.Watch(ctx, opts)
}
