package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// outage is an API that may be away. Of the bindings asked for meanwhile every other one is done all the same, and only the answer is lost.
type outage struct {
	*clienttest.Client
	mu    sync.Mutex
	away  bool
	tried map[string]int // while it was away, by pod
	bound map[string]int // that were done
}

var errAway = errors.New("connection refused")

func (o *outage) set(away bool) {
	o.mu.Lock()
	o.away = away
	o.mu.Unlock()
}

func (o *outage) gone() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.away
}

func (o *outage) Delete(ctx context.Context, obj crclient.Object, opts ...crclient.DeleteOption) error {
	if o.gone() {
		return errAway
	}
	return o.Client.Delete(ctx, obj, opts...)
}

func (o *outage) SubResource(name string) crclient.SubResourceClient {
	return outageSub{o.Client.SubResource(name), o}
}

type outageSub struct {
	crclient.SubResourceClient
	*outage
}

func (o outageSub) Update(ctx context.Context, obj crclient.Object, opts ...crclient.SubResourceUpdateOption) error {
	if o.gone() {
		o.count(o.tried, obj.GetName())
		return errAway
	}
	return o.SubResourceClient.Update(ctx, obj, opts...)
}

func (o outageSub) Create(ctx context.Context, obj, sub crclient.Object, opts ...crclient.SubResourceCreateOption) error {
	away := o.gone()
	if away {
		if o.count(o.tried, obj.GetName()); obj.GetName()[len(obj.GetName())-1]%2 == 0 {
			return errAway
		}
	}
	err := o.SubResourceClient.Create(ctx, obj, sub, opts...)
	if err == nil {
		o.count(o.bound, obj.GetName())
	}
	if away {
		return errors.New("the answer is lost")
	}
	return err
}

func (o *outage) count(in map[string]int, pod string) {
	o.mu.Lock()
	in[pod]++
	o.mu.Unlock()
}

func (o *outage) times(pod string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tried[pod]
}

// The API is away for as many tries as a minute has, with back-off at a twentieth of its length. Afterwards every pod is bound, once; the one that
// fits nowhere is told why, the one that others give way for has its place, and nodes take exactly what they can.
func TestAPIAwayForAMinute(t *testing.T) {
	low := priority(on(pod("low", "1"), "c"), 1)
	c := clienttest.New(t, node("a", "2"), node("b", "2"), labelled(node("c", "1"), "for", "urgent"), low)
	o := &outage{Client: c, away: true, tried: map[string]int{}, bound: map[string]int{}}
	settings := profile.Default()
	settings.InitialBackoff, settings.MaxBackoff = time.Second/20, 10*time.Second/20
	run(t, Config{Client: o, Settings: settings, Log: slog.New(slog.DiscardHandler)})
	urgent := priority(pod("urgent", "1"), 50)
	urgent.Spec.NodeSelector = map[string]string{"for": "urgent"}
	big := pod("big", "64")
	create(t, c, urgent, big)
	for i := range 20 {
		create(t, c, pod(fmt.Sprintf("p%d", i), "200m"))
	}
	clienttest.Eventually(t, "all tried again and again, but for those whose binding was done", func() bool {
		for i := 0; i < 20; i += 2 {
			if o.times(fmt.Sprintf("p%d", i)) < 8 {
				return false
			}
		}
		return o.times("big") > 3 && o.times("low")+o.times("urgent") > 3
	})
	if why(get(t, c, "big")) != "" {
		t.Fatal("the API was not away")
	}
	o.set(false)
	clienttest.Eventually(t, "all are bound, ten on each node", func() bool {
		on := map[string]int{}
		for i := range 20 {
			on[get(t, c, fmt.Sprintf("p%d", i)).Spec.NodeName]++
		}
		return on["a"] == 10 && on["b"] == 10
	})
	clienttest.Eventually(t, "the one that fits nowhere is told", func() bool { return why(get(t, c, "big")) != "" })
	clienttest.Eventually(t, "the important one has its place", func() bool { return get(t, c, "urgent").Spec.NodeName == "c" })
	create(t, c, pod("more", "200m"))
	clienttest.Eventually(t, "no node takes more", func() bool { return why(get(t, c, "more")) != "" })
	o.mu.Lock()
	defer o.mu.Unlock()
	for pod, n := range o.bound {
		if n != 1 {
			t.Errorf("%s was bound %d times", pod, n)
		}
	}
}

// set is what a clock says that was set by d meanwhile: the time of day jumps, the monotonic reading goes on.
func set(t time.Time, d time.Duration) time.Time {
	word := (*uint64)(unsafe.Pointer(&t)) // one bit, 33 of seconds, 30 of nanoseconds
	*word += uint64(int64(d/time.Second)) << 30
	return t
}

// A clock that is set, forwards and backwards, neither ends a pause early nor makes it longer, and nothing stands still.
func TestClockJumps(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	if jumped := set(now, -time.Hour); jumped.Sub(now) != 0 || jumped.Round(0).Sub(now.Round(0)) != -time.Hour {
		t.Fatal("no such clock", now, jumped)
	}
	const pause = 200 * time.Millisecond
	var mu sync.Mutex
	var by time.Duration
	var tries []time.Time
	c := clienttest.New(t, node("a", "1"))
	settings := profile.Default()
	settings.InitialBackoff, settings.MaxBackoff = pause, 8*pause
	s := New(Config{Settings: settings, Log: slog.New(slog.DiscardHandler), Client: refusing{c, func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		tries = append(tries, time.Now())
		if len(tries) == 4 {
			by = -time.Hour
			return nil
		}
		jump, waker := []time.Duration{24 * time.Hour, -48 * time.Hour, 0}[len(tries)-1], pod(fmt.Sprint("waker", len(tries)), "1m")
		waker.Spec.SchedulerName = "other" // the loop looks at the clock for it, and has nothing else to do with it
		time.AfterFunc(pause/4, func() {   // amid the pause
			mu.Lock()
			by = jump
			mu.Unlock()
			_ = c.Create(ctx, waker)
		})
		return errors.New("not yet")
	}}})
	s.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return set(time.Now(), by)
	}
	start(t, s)
	create(t, c, pod("p", "100m"))
	clienttest.Eventually(t, "the pod bound at the fourth try", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
	mu.Lock()
	for k := 1; k < len(tries); k++ {
		if took := tries[k].Sub(tries[k-1]); took < pause<<(k-1) {
			t.Errorf("try %d came %s after the last, want %s", k, took, pause<<(k-1))
		}
	}
	mu.Unlock()
	create(t, c, pod("q", "1"))
	clienttest.Eventually(t, "a pod that does not fit is told", func() bool { return why(get(t, c, "q")) != "" })
	mu.Lock()
	tries = tries[:3] // the next is let through
	mu.Unlock()
	if err := c.Delete(ctx, &corev1.Pod{ObjectMeta: get(t, c, "p").ObjectMeta}); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "and gets in when there is room", func() bool { return get(t, c, "q").Spec.NodeName == "a" })
}
